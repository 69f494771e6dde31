/* A stand-in for NVIDIA's libnvidia-ml.so.1, for the real client nvidia-ml-py: two GPUs. The process
 * that asks has as many bytes on each of them as the file MARS_TEST_GPU_BYTES says, and they are in use
 * for a quarter of the time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process_t;
typedef struct { unsigned gpu, memory; } rates_t;
static int devices[2];

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return "stub"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index > 1) return 2;
    *handle = &devices[index];
    return 0;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    *handle = &devices[strcmp(uuid, "GPU-b") == 0];
    return 0;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *count, process_t *some) {
    const char *path = getenv("MARS_TEST_GPU_BYTES");
    FILE *file = path ? fopen(path, "r") : 0;
    unsigned long long bytes = 0;
    if (file) { if (fscanf(file, "%llu", &bytes) != 1) bytes = 0; fclose(file); }
    if (*count < 1 || !some) { *count = 1; return 7; }
    some[0].pid = getpid();
    some[0].used = bytes;
    *count = 1;
    return 0;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    rates->gpu = 25;
    rates->memory = 0;
    return 0;
}
