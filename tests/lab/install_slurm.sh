#!/bin/sh
# Installs Slurm for the tests, where apt and root are there. Starts nothing, and does nothing if it
# is there already.
set -eu
for command in munged slurmctld slurmd salloc; do
    command -v "$command" >/dev/null || PATH=$PATH:/usr/sbin command -v "$command" >/dev/null ||
        missing=$command
done
[ -n "${missing:-}" ] || exit 0
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || {
    echo "no $missing here, and no way to install it: tests on Slurm will be skipped"
    exit 0
}
policy=/usr/sbin/policy-rc.d
# Debian starts what it installs, unless this file says no.
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y --no-install-recommends -o DPkg::Lock::Timeout=120 install \
    munge slurmctld slurmd slurm-client iproute2 util-linux >/dev/null
