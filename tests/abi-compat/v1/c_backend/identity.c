/* A backend in plain C: returns input number i as OUTPUTi. Any type, any shape, any number of pieces. */
#include "trireme_backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 16 };
static const TriremeStatus OK = { .code = TriremeStatusCode_OK };

/* Copies input `i` into memory of the host. On an error `out` holds no buffer that is not the host's. */
static TriremeStatus forward(const TriremeHostVtable *host, TriremeRequestItem item, size_t i, TriremeOutputTensor *out) {
    TriremeInputInfo info;
    TriremeStatus status = host->request->input(item.request, i, &info);
    if (status.code != TriremeStatusCode_OK) return status;
    out->dtype = info.dtype, out->shape = info.shape, out->rank = info.rank;
    status = host->responder->allocate(item.responder, out->name, info.byte_size, TriremeMemoryKind_CPU, 0, &out->buffer);
    char *to = out->buffer.data;
    for (uint32_t piece = 0; status.code == TriremeStatusCode_OK && piece < info.buffer_count; piece++) {
        TriremeBufferView from;
        status = host->request->input_buffer(item.request, i, piece, &from);
        if (status.code != TriremeStatusCode_OK) break;
        memcpy(to, from.data, from.len);
        to += from.len;
    }
    return status;
}

static TriremeStatus execute(void *instance, const TriremeRequestItem *items, size_t count) {
    const TriremeHostVtable *host = instance;
    for (size_t n = 0; n < count; n++) {
        TriremeOutputTensor outputs[MAX_INPUTS] = { 0 };
        char names[MAX_INPUTS][16];
        TriremeResponse response = { .outputs = outputs };
        TriremeStatus status = OK;
        size_t inputs = host->request->input_count(items[n].request);
        for (size_t i = 0; i < inputs && i < MAX_INPUTS && status.code == TriremeStatusCode_OK; i++) {
            int len = snprintf(names[i], sizeof names[i], "OUTPUT%zu", i);
            outputs[i].name = (TriremeStrView){ (const uint8_t *)names[i], (size_t)len };
            status = forward(host, items[n], i, &outputs[i]);
            response.output_count += outputs[i].buffer.data != NULL;
        }
        response.code = status.code;
        response.message = (TriremeStrView){ status.message.data, status.message.len };
        host->responder->send(items[n].responder, &response, TriremeResponseFlags_FINAL);
        if (status.message.release != NULL) status.message.release(status.message.owner);
        host->responder->release(items[n].responder);
        host->request->release(items[n].request);
    }
    return OK;
}

/* Nothing is kept: the host's table is the backend, the model and the instance. */
static TriremeStatus create(TriremeBackendArgsPtr args, void **out) { *out = (void *)args->host.vtable; return OK; }
static TriremeStatus load(void *backend, TriremeModelArgsPtr args, void **out) { (void)args; *out = backend; return OK; }
static TriremeStatus new_instance(void *model, TriremeInstanceArgsPtr args, void **out) { (void)args; *out = model; return OK; }
static TriremeStatus propose(void *b, TriremeModelArgsPtr a, TriremeOwnedText *out) { (void)b, (void)a, (void)out; return OK; }
static void info(TriremeBackendInfoPtr info) { info->devices = 1; }
static void nothing(void *object) { (void)object; }

/* `extension` is left out: `struct_size` says where the tables end. */
static const TriremeInstanceVtable INSTANCE = { sizeof INSTANCE, execute, nothing, nothing };
static const TriremeModelVtable MODEL = { offsetof(TriremeModelVtable, extension), new_instance, nothing, NULL };
static const TriremeBackendVtable BACKEND = { offsetof(TriremeBackendVtable, extension), &MODEL, &INSTANCE,
                                              info, create, nothing, propose, load, NULL };
const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, .struct_size = sizeof(TriremeProbe),
    .abi_major = TRIREME_ABI_MAJOR, .abi_minor = TRIREME_ABI_MINOR, .panic = TriremePanicStrategy_NONE,
    .name = "c_identity", .version = "1", .sdk = "C", .vtable = &BACKEND };
