/* A backend that breaks the rules of `send`, in the way that the request's id names. */
#include "trireme_backend.h"
#include <string.h>

static const TriremeStatus OK = { .code = TriremeStatusCode_OK };

static TriremeStrView text(const char *text) { return (TriremeStrView){ (const uint8_t *)text, strlen(text) }; }
static bool is(TriremeStrView id, const char *lie) { return id.len == strlen(lie) && memcmp(id.data, lie, id.len) == 0; }

static TriremeStatus execute(void *instance, const TriremeRequestItem *items, size_t count) {
    const TriremeHostVtable *host = instance;
    for (size_t n = 0; n < count; n++) {
        static const int64_t two[1] = { 2 }, negative[2] = { -1, -2 }, huge[3] = { INT64_MAX, INT64_MAX, 4 }, long_[99] = { 2 };
        const TriremeStrView id = host->request->id(items[n].request);
        TriremeOutputTensor outputs[2] = { { .name = text("Y"), .dtype = 10, .shape = two, .rank = 1 } };
        TriremeParameter parameter = { .name = text("p"), .kind = 0 };
        TriremeResponse response = { .outputs = outputs, .output_count = 1 };
        size_t bytes = 4; /* two FP16 */
        if (is(id, "too few bytes")) bytes = 3;
        if (is(id, "too many bytes")) bytes = 5;
        if (is(id, "negative shape")) outputs[0].shape = negative, outputs[0].rank = 2;
        if (is(id, "overflowing shape")) outputs[0].shape = huge, outputs[0].rank = 3;
        if (is(id, "rank over the limit")) outputs[0].shape = long_, outputs[0].rank = 99;
        if (is(id, "rank without a shape")) outputs[0].shape = NULL;
        if (is(id, "unknown type")) outputs[0].dtype = 99;
        if (is(id, "broken strings")) outputs[0].dtype = 13;
        host->responder->allocate(items[n].responder, outputs[0].name, bytes, TriremeMemoryKind_CPU, 0, &outputs[0].buffer);
        if (outputs[0].buffer.data != NULL) memset(outputs[0].buffer.data, 0x55, bytes);
        if (is(id, "pointer without memory")) outputs[1] = outputs[0], outputs[1].buffer = (TriremeBuffer){ .len = 4 }, response.output_count = 2;
        if (is(id, "memory that is nowhere")) outputs[1] = outputs[0], outputs[1].buffer = (TriremeBuffer){ .data = outputs, .len = 4, .kind = 77 }, response.output_count = 2;
        if (is(id, "list without an address")) response.parameter_count = 3;
        if (is(id, "unknown parameter")) parameter.kind = 9, response.parameters = &parameter, response.parameter_count = 1;
        if (is(id, "endless list")) response.parameters = &parameter, response.parameter_count = SIZE_MAX;
        if (is(id, "nothing at all")) response.outputs = NULL, response.output_count = 0;
        if (!is(id, "no answer")) host->responder->send(items[n].responder, &response, TriremeResponseFlags_FINAL);
        else if (outputs[0].buffer.release != NULL) outputs[0].buffer.release(outputs[0].buffer.owner, 0);
        if (is(id, "answer after the last")) {
            TriremeResponse late = { 0 };
            host->responder->send(items[n].responder, &late, TriremeResponseFlags_FINAL);
        }
        host->responder->release(items[n].responder);
        host->request->release(items[n].request);
    }
    return OK;
}

static TriremeStatus create(TriremeBackendArgsPtr args, void **out) { *out = (void *)args->host.vtable; return OK; }
static TriremeStatus load(void *backend, TriremeModelArgsPtr args, void **out) { (void)args; *out = backend; return OK; }
static TriremeStatus new_instance(void *model, TriremeInstanceArgsPtr args, void **out) { (void)args; *out = model; return OK; }
static TriremeStatus propose(void *b, TriremeModelArgsPtr a, TriremeOwnedText *out) { (void)b, (void)a, (void)out; return OK; }
static void info(TriremeBackendInfoPtr info) { info->devices = 1; }
static void nothing(void *object) { (void)object; }

static const TriremeInstanceVtable INSTANCE = { sizeof INSTANCE, execute, nothing, nothing };
static const TriremeModelVtable MODEL = { offsetof(TriremeModelVtable, extension), new_instance, nothing, NULL };
static const TriremeBackendVtable BACKEND = { offsetof(TriremeBackendVtable, extension), &MODEL, &INSTANCE,
                                              info, create, nothing, propose, load, NULL };
const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, .struct_size = sizeof(TriremeProbe),
    .abi_major = TRIREME_ABI_MAJOR, .panic = TriremePanicStrategy_NONE, .name = "liar", .version = "1", .sdk = "C",
    .vtable = &BACKEND };
