#!/usr/bin/env bash
# Starts a two-node Kubernetes cluster in network namespaces of its own and waits until both nodes
# are Ready. What it writes and what it starts is described in README.md; down.sh ends it.
#
#     up.sh DIR
#
#          this machine                namespace mkXXXX (the control plane)
#     127.0.0.1:PORT -- forward.py --> etcd, API server 10.77.0.1:6443, controller, scheduler, names.py
#                                         |  bridge mkbr
#                         mkXXXX-node1 ---+--- mkXXXX-node2      containerd, kubelet, kube-proxy
#                           10.77.0.11            10.77.0.12
#                      pods 10.78.1.0/24     pods 10.78.2.0/24   services 10.79.0.0/24
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${XDG_CACHE_HOME:-$HOME/.cache}/mars-kubernetes/bin
give_up() { echo "up.sh: $*" >&2; exit 1; }

[ $# = 1 ] || give_up "usage: up.sh DIR"
[ "$(id -u)" = 0 ] || give_up "needs root, for namespaces and mounts"
if [ ! -x "$bin/kubelet" ] || [ ! -s "$bin/../pause.tar" ]; then give_up "run build.sh first"; fi
mkdir -p "$1"; dir=$(cd "$1" && pwd -P)
# Each node sees a /var, /run and /proc of its own, so DIR must lie elsewhere.
case $dir/ in /var/* | /run/* | /proc/* | /sys/* | /dev/*) give_up "choose a folder outside /var, /run, /proc, /sys and /dev" ;; esac
case $dir in *[[:space:],:\"]*) give_up "choose a folder without blanks, commas, colons and quotes in its name" ;; esac
[ ! -e "$dir/pids" ] || give_up "$dir has a cluster already; down.sh $1 ends it"

name=mk$(printf '%s' "$dir" | sha1sum | cut -c1-4)
[ ! -e "/run/netns/$name" ] || give_up "the namespace $name exists already"
began=$EPOCHREALTIME
elapsed() { awk -v a="$began" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
log=$dir/logs; mkdir -p "$log"
printf '%s\n' "$name" >"$dir/name"; : >"$dir/pids"
ready=no
finish() {
    [ $ready = no ] || return 0
    echo "up.sh: failed after $(elapsed) s; the logs are in $log" >&2
    "$here/down.sh" "$dir" >&2 || true
}
trap finish EXIT; trap 'exit 130' INT; trap 'exit 143' TERM HUP
# A process id alone may be taken by a stranger later; with its start time it is not.
remember() { disown "$2"; printf '%s %s %s\n' "$1" "$2" "$(sed 's/.*) //' "/proc/$2/stat" | cut -d' ' -f20)" >>"$dir/pids"; }
wait_for() { # WHAT SECONDS COMMAND...
    local what=$1 until=$((SECONDS + $2)); shift 2
    until "$@" >"$log/wait" 2>&1; do
        [ $SECONDS -lt $until ] || { tail -3 "$log/wait" >&2; give_up "waited too long for $what"; }
        sleep 0.2
    done
}

# --- keys and certificates ------------------------------------------------------------------------
pki=$dir/pki; mkdir -p "$pki"; chmod 700 "$pki"
key() { openssl ecparam -genkey -name prime256v1 -noout -out "$pki/$1.key"; }
key ca; key service-accounts
openssl req -x509 -new -key "$pki/ca.key" -subj /CN=mars-kubernetes -days 30 -out "$pki/ca.crt" 2>"$log/openssl"
certificate() { # FILE SUBJECT [NAMES]
    key "$1"
    openssl req -new -key "$pki/$1.key" -subj "$2" -out "$pki/$1.csr" 2>>"$log/openssl"
    openssl x509 -req -in "$pki/$1.csr" -CA "$pki/ca.crt" -CAkey "$pki/ca.key" -CAcreateserial -days 30 -out "$pki/$1.crt" \
        -extfile <(printf 'extendedKeyUsage=serverAuth,clientAuth\n%s\n' "${3:+subjectAltName=$3}") 2>>"$log/openssl"
}
certificate apiserver /CN=kube-apiserver \
    IP:127.0.0.1,IP:10.77.0.1,IP:10.79.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
certificate to-kubelet /O=system:masters/CN=apiserver-to-kubelet
certificate admin /O=system:masters/CN=admin
certificate controller /CN=system:kube-controller-manager
certificate scheduler /CN=system:kube-scheduler
certificate proxy /CN=system:kube-proxy
for n in 1 2; do certificate "node$n" "/O=system:nodes/CN=system:node:node$n" "DNS:node$n,IP:10.77.0.1$n"; done
text() { base64 -w0 <"$pki/$1"; }
kubeconfig() { # WHO SERVER
    cat <<END
{"apiVersion": "v1", "kind": "Config", "current-context": "mars",
 "clusters": [{"name": "mars", "cluster": {"server": "https://$2", "certificate-authority-data": "$(text ca.crt)"}}],
 "users": [{"name": "$1", "user": {"client-certificate-data": "$(text "$1.crt")", "client-key-data": "$(text "$1.key")"}}],
 "contexts": [{"name": "mars", "context": {"cluster": "mars", "user": "$1"}}]}
END
}
umask_before=$(umask); umask 077
for who in admin controller scheduler proxy node1 node2; do kubeconfig $who 10.77.0.1:6443 >"$pki/$who.kubeconfig"; done
umask "$umask_before"

# --- the network ----------------------------------------------------------------------------------
inside() { nsenter --net="/run/netns/$1" "${@:2}"; } # not "ip netns exec": it hides the cgroups
# "ip netns" mounts this folder on itself the first time; down.sh undoes that where we caused it.
mountpoint -q /run/netns || touch "$dir/netns-folder-is-ours"
ip netns add "$name"
inside "$name" ip link set lo up
inside "$name" ip link add mkbr type bridge
inside "$name" ip addr add 10.77.0.1/24 dev mkbr
inside "$name" ip link set mkbr up
for n in 1 2; do
    ip netns add "$name-node$n"
    inside "$name" ip link add "node$n" type veth peer name eth0 netns "$name-node$n"
    inside "$name" ip link set "node$n" master mkbr up
    inside "$name-node$n" sh -ec "
        ip link set lo up; ip addr add 10.77.0.1$n/24 dev eth0; ip link set eth0 up
        ip route add 10.78.$((3 - n)).0/24 via 10.77.0.1$((3 - n)); ip route add 10.79.0.0/24 via 10.77.0.1
        # All else fails at once. Without this the kubelet waits 11 s for clouds' metadata servers.
        ip route add unreachable default
        echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables"
    inside "$name" ip route add "10.78.$n.0/24" via "10.77.0.1$n"
done

# --- the control plane ----------------------------------------------------------------------------
start() { # NAME COMMAND...
    local what=$1; shift
    setsid nsenter --net="/run/netns/$name" "$@" >"$log/$what.log" 2>&1 </dev/null 9>&- &
    remember "$what" $!
}
start etcd "$bin/etcd" --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --logger zap
start apiserver "$bin/kube-apiserver" --etcd-servers http://127.0.0.1:2379 \
    --bind-address 0.0.0.0 --secure-port 6443 --advertise-address 10.77.0.1 --service-cluster-ip-range 10.79.0.0/24 \
    --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" --client-ca-file "$pki/ca.crt" \
    --authorization-mode Node,RBAC --feature-gates TTLAfterFinished=true --enable-admission-plugins NodeRestriction --allow-privileged \
    --service-account-key-file "$pki/service-accounts.key" --service-account-signing-key-file "$pki/service-accounts.key" \
    --service-account-issuer https://kubernetes.default.svc --kubelet-preferred-address-types InternalIP \
    --kubelet-certificate-authority "$pki/ca.crt" --kubelet-client-certificate "$pki/to-kubelet.crt" \
    --kubelet-client-key "$pki/to-kubelet.key" \
    --default-not-ready-toleration-seconds 10 --default-unreachable-toleration-seconds 10
setsid python3 "$here/forward.py" 10.77.0.1:6443 "/run/netns/$name" "$dir/port" >"$log/forward.log" 2>&1 </dev/null &
remember forward $!
wait_for "the port forwarder" 20 test -s "$dir/port"
(umask 077; kubeconfig admin "127.0.0.1:$(cat "$dir/port")" >"$dir/kubeconfig")
kubectl() { "$bin/kubectl" --kubeconfig "$dir/kubeconfig" "$@"; }
wait_for "the API server" 120 kubectl get --raw /readyz
api_s=$(elapsed)
start controller "$bin/kube-controller-manager" --kubeconfig "$pki/controller.kubeconfig" --leader-elect=false --port 0 --feature-gates TTLAfterFinished=true \
    --service-account-private-key-file "$pki/service-accounts.key" --root-ca-file "$pki/ca.crt" \
    --use-service-account-credentials --node-monitor-period 2s --node-monitor-grace-period 30s
start scheduler "$bin/kube-scheduler" --kubeconfig "$pki/scheduler.kubeconfig" --leader-elect=false --port 0
start names python3 "$here/names.py" 10.77.0.1 "$pki/admin.kubeconfig"

# --- the nodes ------------------------------------------------------------------------------------
# In a process namespace: killing its first process ends every container, whatever they did.
for n in 1 2; do
    setsid nsenter --net="/run/netns/$name-node$n" \
        unshare --mount --uts --ipc --pid --fork --kill-child --mount-proc \
        bash "$here/node.sh" "$dir" "$name" "$n" "$bin" >"$log/node$n.log" 2>&1 </dev/null &
    remember "node$n" $!
done
for n in 1 2; do
    wait_for "node$n to register" 90 kubectl get node "node$n"
done
for n in 1 2; do
    wait_for "node$n to be Ready" 90 kubectl wait --for=condition=Ready --timeout=1s "node/node$n"
done
has_token() { kubectl -n default get serviceaccount default -o 'jsonpath={.secrets[0].name}' | grep -q .; }
wait_for "the token of the default service account" 60 has_token
ready=yes
echo "cluster ready after $(elapsed) s (API server after $api_s s)"
kubectl get nodes --no-headers
echo "KUBECONFIG=$dir/kubeconfig    logs: $log"
