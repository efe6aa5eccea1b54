/* A backend that breaks a rule of the ABI with each request: the one that the request's id names. What safe Rust cannot
 * do. The validation layer (TRIREME_ABI_CHECK=1) has to name each. */
#define _DEFAULT_SOURCE
#include "trireme_backend.h"
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static const TriremeStatus OK = { .code = TriremeStatusCode_OK };
static const TriremeHostVtable *host;
static const void *context;
static TriremeRequestItem kept[64];
static size_t kept_count;

static TriremeStrView text(const char *text) { return (TriremeStrView){ (const uint8_t *)text, strlen(text) }; }
static bool is(TriremeStrView id, const char *name) { return id.len == strlen(name) && memcmp(id.data, name, id.len) == 0; }
static void forget(TriremeStatus status) { if (status.message.release != NULL) status.message.release(status.message.owner); }
static void release(TriremeBuffer buffer) { if (buffer.release != NULL) buffer.release(buffer.owner, 0); }
static void give_back(TriremeRequestItem item) { host->responder->release(item.responder), host->request->release(item.request); }

/* One float as the output Y, in memory of the host unless there is other. */
static TriremeBuffer memory(TriremeRequestItem item, size_t bytes) {
    TriremeBuffer buffer = { 0 };
    forget(host->responder->allocate(item.responder, text("Y"), bytes, TriremeMemoryKind_CPU, 0, &buffer));
    return buffer;
}

static TriremeSendVerdict send_in(TriremeRequestItem item, TriremeBuffer buffer, TriremeStrView name, TriremeResponseFlags flags) {
    static const int64_t one[1] = { 1 };
    TriremeOutputTensor output = { .name = name, .dtype = TriremeDType_FP32, .shape = one, .rank = 1, .buffer = buffer };
    TriremeResponse response = { .outputs = &output, .output_count = 1 };
    return host->responder->send(item.responder, &response, flags);
}

static void answer(TriremeRequestItem item) { send_in(item, memory(item, 4), text("Y"), TriremeResponseFlags_FINAL); }

struct call { TriremeRequestItem item; atomic_int done; };

static void *send_elsewhere(void *user) {
    struct call *call = user;
    answer(call->item);
    atomic_store(&call->done, 1);
    return NULL;
}

/* While another thread is in `send`, which this host keeps until it hears `mark`. */
static void mark_meanwhile(TriremeRequestItem item) {
    struct call call = { .item = item, .done = 0 };
    pthread_t thread;
    if (pthread_create(&thread, NULL, send_elsewhere, &call) != 0) return;
    while (!atomic_load(&call.done)) {
        host->responder->mark(item.responder, TriremeStage_COMPUTE_START, 0);
        usleep(1000);
    }
    pthread_join(thread, NULL);
}

static void offend(TriremeStrView id, TriremeRequestItem item) {
    TriremeInputInfo info;
    if (is(id, "response-after-final")) {
        answer(item), answer(item), give_back(item);
    } else if (is(id, "output-size")) {
        send_in(item, memory(item, 8), text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "outside-buffer")) {
        TriremeBuffer buffer = memory(item, 4);
        buffer.len = 4096;
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "outside-buffer: before its start")) {
        TriremeBuffer buffer = memory(item, 4);
        buffer.data = (char *)buffer.data - 4;
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "outside-buffer: a shifted start")) {
        TriremeBuffer buffer = memory(item, 4);
        buffer.data = (char *)buffer.data + 2;
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "write-past-buffer")) {
        TriremeBuffer buffer = memory(item, 4);
        memset(buffer.data, 0, 5);
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "write-past-buffer: the host's own call")) {
        TriremeBuffer buffer = { 0 };
        forget(host->allocate(context, TriremeMemoryKind_CPU, 0, 16, &buffer));
        memset(buffer.data, 0, 17);
        release(buffer), answer(item), give_back(item);
    } else if (is(id, "use-after-release")) {
        answer(item), give_back(item);
        host->request->input_count(item.request);
    } else if (is(id, "use-after-release: responder")) {
        give_back(item);
        send_in(item, (TriremeBuffer){ 0 }, text("Y"), TriremeResponseFlags_FINAL);
    } else if (is(id, "use-after-release: a buffer sent twice")) {
        TriremeBuffer buffer = memory(item, 4);
        send_in(item, buffer, text("Y"), TriremeResponseFlags_NONE);
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "released-twice")) {
        answer(item), give_back(item);
        host->request->release(item.request);
    } else if (is(id, "released-twice: responder")) {
        answer(item), give_back(item);
        host->responder->release(item.responder);
    } else if (is(id, "released-twice: buffer")) {
        TriremeBuffer buffer = memory(item, 4);
        release(buffer), release(buffer), answer(item), give_back(item);
    } else if (is(id, "released-twice: buffer that was sent")) {
        TriremeBuffer buffer = memory(item, 4);
        send_in(item, buffer, text("Y"), TriremeResponseFlags_FINAL);
        release(buffer), give_back(item);
    } else if (is(id, "unknown-handle")) {
        host->request->input_count((const TriremeRequestHandle *)item.responder), answer(item), give_back(item);
    } else if (is(id, "unknown-handle: null")) {
        host->request->batch_size(NULL), answer(item), give_back(item);
    } else if (is(id, "unknown-handle: an address")) {
        int somewhere = 0;
        host->responder->cancelled((const TriremeResponderHandle *)(void *)&somewhere), answer(item), give_back(item);
    } else if (is(id, "concurrent-call")) {
        mark_meanwhile(item), give_back(item);
    } else if (is(id, "sent-while-paused")) {
        send_in(item, memory(item, 4), text("Y"), TriremeResponseFlags_NONE);
        send_in(item, memory(item, 4), text("Y"), TriremeResponseFlags_NONE);
        answer(item), give_back(item);
    } else if (is(id, "null-result")) {
        forget(host->request->input(item.request, 0, NULL)), answer(item), give_back(item);
    } else if (is(id, "text-not-utf8")) {
        send_in(item, memory(item, 4), text("\xff"), TriremeResponseFlags_FINAL), give_back(item);
    } else if (is(id, "keep")) {
        kept[kept_count++] = item;
    } else {
        /* Nothing is wrong here: every call that a well-behaved backend makes, and a part of the host's memory sent. */
        TriremeBuffer whole = { 0 };
        forget(host->request->input(item.request, 0, &info));
        forget(host->request->gather(item.request, 0, TriremeMemoryKind_CPU, 0, &whole));
        release(whole);
        whole = memory(item, 12);
        whole.data = (char *)whole.data + 4, whole.len = 4;
        send_in(item, whole, text("Y"), TriremeResponseFlags_FINAL), give_back(item);
    }
}

static TriremeStatus execute(void *instance, const TriremeRequestItem *items, size_t count) {
    (void)instance;
    for (size_t n = 0; n < count; n++) offend(host->request->id(items[n].request), items[n]);
    return OK;
}

static TriremeStatus create(TriremeBackendArgsPtr args, void **out) {
    host = args->host.vtable, context = args->host.context;
    *out = (void *)host;
    return OK;
}

static TriremeStatus load(void *backend, TriremeModelArgsPtr args, void **out) {
    *out = backend;
    bool fails = is(args->config_json, "written-on-error");
    return (TriremeStatus){ .code = fails ? TriremeStatusCode_INTERNAL : TriremeStatusCode_OK };
}

static TriremeStatus new_instance(void *model, TriremeInstanceArgsPtr args, void **out) { (void)args; *out = model; return OK; }
static TriremeStatus propose(void *b, TriremeModelArgsPtr a, TriremeOwnedText *out) { (void)b, (void)a, (void)out; return OK; }
static void info(TriremeBackendInfoPtr info) { info->devices = 1; }
static void nothing(void *object) { (void)object; }

static const TriremeInstanceVtable INSTANCE = { sizeof INSTANCE, execute, nothing, nothing };
static const TriremeModelVtable MODEL = { offsetof(TriremeModelVtable, extension), new_instance, nothing, NULL };
static const TriremeBackendVtable BACKEND = { offsetof(TriremeBackendVtable, extension), &MODEL, &INSTANCE,
                                              info, create, nothing, propose, load, NULL };
const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, .struct_size = sizeof(TriremeProbe),
    .abi_major = TRIREME_ABI_MAJOR, .panic = TriremePanicStrategy_NONE, .name = "offender", .version = "1", .sdk = "C",
    .vtable = &BACKEND };
