// A CUDA driver for tests of memory between processes: its GPU is memory of this machine, which the backend `guarded`
// (tests/examples) opens by the same handles. A call without a context, or of memory that is not there, fails. Kernels run when
// somebody waits for them, and not before.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { OK = 0, INVALID = 1, NO_CONTEXT = 201, MOST = 4096, KERNELS = 64 };

typedef struct { unsigned char bytes[64]; } Handle;

static struct { char *base; size_t size; int file, opened; } table[MOST];
static struct { float *to, *from; size_t count; float factor; } kernels[KERNELS];
static int launched, fault;
static __thread int depth;

static int find(uint64_t address) {
    for (int i = 0; i < MOST; i++)
        if (table[i].base && (char *)address >= table[i].base && (char *)address < table[i].base + table[i].size) return i;
    return -1;
}

static int add(int file, size_t size, int opened, uint64_t *at) {
    char *base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED) return INVALID;
    for (int i = 0; i < MOST; i++)
        if (!table[i].base) {
            table[i].base = base, table[i].size = size, table[i].file = file, table[i].opened = opened;
            *at = (uint64_t)base;
            return OK;
        }
    return INVALID;
}

static int drop(uint64_t address, int opened) {
    int i = find(address);
    if (i < 0 || table[i].base != (char *)address || table[i].opened != opened) return INVALID;
    char *end = table[i].base + table[i].size;
    for (int k = 0; k < launched; k++) {
        char *to = (char *)kernels[k].to, *from = (char *)kernels[k].from;
        // A kernel would meet memory that is not there.
        if ((to >= table[i].base && to < end) || (from >= table[i].base && from < end)) return INVALID;
    }
    munmap(table[i].base, table[i].size);
    close(table[i].file);
    table[i].base = NULL;
    return OK;
}

// For the model: memory of its own that is there, and memory of others that is open.
int test_count(int opened) {
    int n = 0;
    for (int i = 0; i < MOST; i++) n += table[i].base && table[i].opened == opened;
    return n;
}

// For the model: a kernel that multiplies.
int test_multiply(float *to, float *from, size_t count, float factor) {
    if (launched == KERNELS) return INVALID;
    kernels[launched].to = to, kernels[launched].from = from, kernels[launched].count = count;
    kernels[launched++].factor = factor;
    return OK;
}

// For the model: from now on whoever waits for the GPU is told this.
void test_fault(int status) { fault = status; }

int cuInit(unsigned flags) { return flags ? INVALID : OK; }
int cuGetErrorString(int status, const char **text) { *text = status == NO_CONTEXT ? "no context" : "invalid"; return OK; }
int cuDeviceGet(int *device, int number) { *device = number; return number ? INVALID : OK; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)8; return device ? INVALID : OK; }
int cuCtxPushCurrent_v2(void *context) { depth++; return context ? OK : INVALID; }
int cuCtxPopCurrent_v2(void **context) { *context = (void *)8; return depth-- > 0 ? OK : INVALID; }
int cuCtxSynchronize(void) {
    if (!depth || fault) return depth ? fault : NO_CONTEXT;
    for (int k = 0; k < launched; k++)
        for (size_t i = 0; i < kernels[k].count; i++) kernels[k].to[i] = kernels[k].from[i] * kernels[k].factor;
    launched = 0;
    return OK;
}

int cuMemAlloc_v2(uint64_t *at, size_t size) {
    if (!depth) return NO_CONTEXT;
    int file = memfd_create("guarded", MFD_CLOEXEC);
    size = (size + 4095) & ~(size_t)4095;
    if (file < 0 || ftruncate(file, size)) return INVALID;
    return add(file, size, 0, at);
}
int cuMemFree_v2(uint64_t at) { return depth ? drop(at, 0) : NO_CONTEXT; }

int cuMemGetAddressRange_v2(uint64_t *base, size_t *size, uint64_t at) {
    int i = find(at);
    if (!depth) return NO_CONTEXT;
    if (i < 0) return INVALID;
    *base = (uint64_t)table[i].base, *size = table[i].size;
    return OK;
}

int cuIpcGetMemHandle(Handle *handle, uint64_t at) {
    int i = find(at);
    // What was opened belongs to another process.
    if (!depth || i < 0 || table[i].opened) return depth ? INVALID : NO_CONTEXT;
    uint32_t numbers[2] = { getpid(), table[i].file };
    memset(handle, 0, sizeof *handle);
    memcpy(handle, numbers, sizeof numbers);
    return OK;
}

int cuIpcOpenMemHandle_v2(uint64_t *at, Handle handle, unsigned flags) {
    uint32_t numbers[2];
    char path[64];
    struct stat there;
    memcpy(numbers, &handle, sizeof numbers);
    snprintf(path, sizeof path, "/proc/%u/fd/%u", numbers[0], numbers[1]);
    int file = open(path, O_RDWR | O_CLOEXEC);
    if (!depth || flags != 1 || file < 0 || fstat(file, &there)) return depth ? INVALID : NO_CONTEXT;
    return add(file, there.st_size, 1, at);
}
int cuIpcCloseMemHandle(uint64_t at) { return depth ? drop(at, 1) : NO_CONTEXT; }

int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t length) {
    int i = find(from);
    if (!depth || i < 0) return depth ? INVALID : NO_CONTEXT;
    memcpy(to, (void *)from, length);
    return OK;
}
