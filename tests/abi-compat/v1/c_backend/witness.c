/* A backend of version 1.0 that calls everything that a host of version 1.0 has, and answers with what it was told: one line
 * for each thing, as REPORT. It also answers completions of OpenAI's API. Model parameters are not looked at; the model
 * "echo" is asked, which returns INPUT0 as OUTPUT0. */
#include "trireme_backend.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const TriremeStatus OK = { .code = TriremeStatusCode_OK };
static const TriremeHostVtable *host;
static const void *context;
static const TriremeBlsVtable *bls;
static const TriremeMetricsVtable *metrics;
static const TriremeOpenAiVtable *openai;
static char settings[4096];

/* What a request was answered so far. */
struct report { char text[16384]; size_t len; TriremeRequestItem item; TriremeCallerHandle *caller; int writable; };
struct model { char about[4096]; TriremeMetricSetHandle *set; uint64_t *seconds; };
struct instance { const struct model *model; char about[256]; };

static TriremeStrView text(const char *text) { return (TriremeStrView){ (const uint8_t *)text, strlen(text) }; }
static bool is(TriremeStrView view, const char *name) { return view.len == strlen(name) && memcmp(view.data, name, view.len) == 0; }

static bool has(TriremeStrView in, const char *what) {
    size_t len = strlen(what);
    for (size_t at = 0; at + len <= in.len; at++) if (memcmp(in.data + at, what, len) == 0) return true;
    return false;
}

static void say(struct report *to, const char *key, const char *value, size_t len) {
    size_t room = sizeof to->text - to->len;
    int wrote = snprintf(to->text + to->len, room, "%s=%.*s\n", key, (int)len, value);
    if (wrote > 0 && (size_t)wrote < room) to->len += (size_t)wrote;
}
static void say_text(struct report *to, const char *key, TriremeStrView value) { say(to, key, (const char *)value.data, value.len); }
static void say_number(struct report *to, const char *key, long long value) {
    char digits[32];
    say(to, key, digits, (size_t)snprintf(digits, sizeof digits, "%lld", value));
}
/* The code; the message is this side's to release. */
static void say_status(struct report *to, const char *key, TriremeStatus status) {
    say_number(to, key, status.code);
    if (status.message.release != NULL) status.message.release(status.message.owner);
}
static int refused(TriremeStatus status) {
    if (status.message.release != NULL) status.message.release(status.message.owner);
    return status.code != TriremeStatusCode_OK;
}
static void give_back(TriremeBuffer buffer) { if (buffer.release != NULL) buffer.release(buffer.owner, 0); }

static void of_request(struct report *to, const TriremeRequestVtable *table, const TriremeRequestHandle *request) {
    say_text(to, "id", table->id(request));
    say_number(to, "input_count", (long long)table->input_count(request));
    TriremeInputInfo info = { 0 };
    say_status(to, "input", table->input(request, 0, &info));
    say_text(to, "input.name", info.name);
    say_number(to, "input.dtype", info.dtype);
    say_number(to, "input.shape", info.rank == 2 ? info.shape[0] * 1000 + info.shape[1] : -1);
    say_number(to, "input.byte_size", (long long)info.byte_size);
    float sum = 0, whole_sum = 0;
    for (uint32_t piece = 0; piece < info.buffer_count; piece++) {
        TriremeBufferView view = { 0 };
        say_status(to, "input_buffer", table->input_buffer(request, 0, piece, &view));
        for (size_t at = 0; view.kind == TriremeMemoryKind_CPU && at + 4 <= view.len; at += 4) {
            float x;
            memcpy(&x, (const char *)view.data + at, 4);
            sum += x;
        }
    }
    TriremeBuffer whole = { 0 };
    say_status(to, "gather", table->gather(request, 0, TriremeMemoryKind_CPU, 0, &whole));
    for (size_t at = 0; at < whole.len / 4; at++) whole_sum += ((const float *)whole.data)[at];
    say_number(to, "gather.aligned", (uintptr_t)whole.data % 64 == 0);
    give_back(whole);
    say_number(to, "sum", (long long)sum);
    say_number(to, "gather.sum", (long long)whole_sum);
    say_status(to, "gather.nowhere", table->gather(request, 0, 77, 0, &whole));
    say_status(to, "input.absent", table->input(request, 99, &info));
    for (size_t at = 0; at < table->parameter_count(request); at++) {
        TriremeParameter parameter = { 0 };
        say_status(to, "parameter", table->parameter(request, at, &parameter));
        say_text(to, "parameter.name", parameter.name);
        say_number(to, "parameter.kind", parameter.kind);
        if (parameter.kind == TriremeParameterKind_STRING) say_text(to, "parameter.value", parameter.string_value);
        else if (parameter.kind == TriremeParameterKind_DOUBLE) say_number(to, "parameter.value", (long long)(parameter.double_value * 4));
        else say_number(to, "parameter.value", parameter.int_value);
    }
    say_number(to, "output_wanted", table->output_wanted(request, 0));
    say_number(to, "output_wanted.unknown", table->output_wanted(request, 9));
    say_number(to, "batch_size", table->batch_size(request));
    say_number(to, "priority", (long long)table->priority(request));
    say_number(to, "has_deadline", table->deadline_ns(request) > host->now_ns(context));
    say_number(to, "correlation_id", (long long)table->correlation_id(request));
    say_text(to, "correlation_text", table->correlation_text(request));
    say_text(to, "trace_parent", table->trace_parent(request));
}

/* A host without a provider has no devices, and knows it. */
static void of_devices(struct report *to, const TriremeDeviceVtable *table) {
    TriremeDeviceInfo info = { .struct_size = sizeof info };
    say_number(to, "device_count", (long long)table->device_count(table->context));
    say_status(to, "device.absent", table->device(table->context, 99, &info));
    uint64_t done = 0;
    char bytes[8] = { 0 };
    TriremeBuffer buffer = { 0 };
    TriremeMemoryRange here = { bytes, sizeof bytes, TriremeMemoryKind_CPU, 0 }, there = { bytes, sizeof bytes, TriremeMemoryKind_GPU, 99 };
    say_number(to, "device.allocate", refused(table->allocate(table->context, TriremeMemoryKind_GPU, 99, 8, &buffer)));
    say_number(to, "device.copy", refused(table->copy(table->context, &there, &here, 0, &done)));
    say_number(to, "device.fill", refused(table->fill(table->context, &there, 0, 0, NULL)));
    say_number(to, "device.event_join", refused(table->event_join(table->context, 99, &done, 1, &done)));
}

static void of_host(struct report *to, struct model *model) {
    say_number(to, "log_level", *host->log_level(context));
    host->log(context, TriremeLogLevel_WARN, text("witness"), text("a line of the witness"));
    TriremeStrView labels[2] = { text("kind"), text("a") };
    TriremeMetricDesc desc = { .name = text("witness_total"), .help = text("Calls."), .kind = TriremeMetricKind_COUNTER, .labels = labels, .label_count = 1 };
    TriremeMetricCell cell = NULL, again = NULL;
    say_status(to, "metric", host->metric(context, &desc, &cell));
    say_status(to, "metric.again", host->metric(context, &desc, &again));
    say_number(to, "metric.same", cell == again);
    double three = 3;
    uint64_t bits;
    memcpy(&bits, &three, 8);
    __atomic_store_n(cell, bits, __ATOMIC_RELAXED);
    TriremeBuffer buffer = { 0 };
    say_status(to, "allocate", host->allocate(context, TriremeMemoryKind_CPU, 0, 1000, &buffer));
    say_number(to, "allocate.good", buffer.len == 1000 && (uintptr_t)buffer.data % 64 == 0);
    memset(buffer.data, 7, buffer.len);
    give_back(buffer);
    say_status(to, "allocate.nowhere", host->allocate(context, 77, 0, 1000, &buffer));
    uint64_t now = host->now_ns(context);
    say_number(to, "now_ns", now > 0 && host->now_ns(context) >= now);
    say_number(to, "extension.unknown", host->extension(context, text("nothing/9")) == NULL);
    say_number(to, "extension.fault", host->extension(context, text(TRIREME_FAULT_1)) != NULL);
    const TriremeDeviceVtable *device = host->extension(context, text(TRIREME_DEVICE_1));
    say_number(to, "extension.device", device != NULL);
    if (device != NULL) of_devices(to, device);
    /* A value of 0.5 between the bounds 0.1 and 1. */
    __atomic_fetch_add(&model->seconds[1], 1, __ATOMIC_RELAXED);
    double half = 0.5;
    memcpy(&bits, &half, 8);
    __atomic_store_n(&model->seconds[3], bits, __ATOMIC_RELAXED);
}

static void writable(void *user) { ((struct report *)user)->writable++; }

static void finish(struct report *report) {
    const TriremeResponderVtable *table = host->responder;
    TriremeResponderHandle *responder = report->item.responder;
    say_number(report, "cancelled", __atomic_load_n(table->cancelled(responder), __ATOMIC_RELAXED));
    table->mark(responder, TriremeStage_COMPUTE_START, 0);
    table->mark(responder, TriremeStage_COMPUTE_END, host->now_ns(context));
    table->mark(responder, 999, 0);
    table->on_writable(responder, (TriremeWritable){ writable, report });
    say_number(report, "writable", report->writable);
    TriremeBuffer buffer = { 0 };
    TriremeStatus status = table->allocate(responder, text("REPORT"), report->len + 4, TriremeMemoryKind_CPU, 0, &buffer);
    if (status.code == TriremeStatusCode_OK) {
        uint32_t len = (uint32_t)report->len;
        memcpy(buffer.data, &len, 4);
        memcpy((char *)buffer.data + 4, report->text, report->len);
    }
    const int64_t shape[2] = { 1, 1 };
    TriremeOutputTensor output = { .name = text("REPORT"), .dtype = TriremeDType_BYTES, .shape = shape, .rank = 2, .buffer = buffer };
    TriremeParameter parameter = { .name = text("by"), .kind = TriremeParameterKind_STRING, .string_value = text("witness") };
    TriremeResponse response = { .outputs = &output, .output_count = 1, .parameters = &parameter, .parameter_count = 1, .code = status.code };
    table->send(responder, &response, TriremeResponseFlags_FINAL);
    table->release(responder);
    if (report->caller != NULL) bls->close(report->caller);
    free(report);
}

static void answered(void *user, TriremeStrView message, TriremeBuffer *buffers, size_t count, uint32_t is_final) {
    struct report *report = user;
    say_text(report, "answer", message);
    for (size_t at = 0; at < count; at++) {
        if (buffers[at].len == 8) say_number(report, "answer.sum", (long long)(((const float *)buffers[at].data)[0] + ((const float *)buffers[at].data)[1]));
        give_back(buffers[at]);
    }
    if (is_final) finish(report);
}

/* The model "echo" is asked with memory of this side. */
static void ask(struct report *report) {
    static const float numbers[2] = { 40, 2 };
    TriremeBuffer input = { .data = (void *)numbers, .len = sizeof numbers, .fd = -1 };
    report->caller = bls->open(report->item.responder);
    TriremeStatus status = bls->call(report->caller, text("{\"model\": \"nobody\", \"inputs\": []}"), NULL, 0, (TriremeCallReply){ report, answered });
    say_number(report, "call.absent", status.code);
    if (status.message.release != NULL) status.message.release(status.message.owner);
    status = bls->call(report->caller,
        text("{\"model\": \"echo\", \"inputs\": [{\"name\": \"INPUT0\", \"datatype\": \"FP32\", \"shape\": [1, 2]}]}"), &input, 1, (TriremeCallReply){ report, answered });
    if (status.code == TriremeStatusCode_OK) return;
    say_status(report, "call", status);
    finish(report);
}

static TriremeStatus execute(void *object, const TriremeRequestItem *items, size_t count) {
    const struct instance *instance = object;
    for (size_t n = 0; n < count; n++) {
        TriremeOpenAiCall call = { 0 };
        if (openai->read(items[n].request, &call)) {
            bool fails = has(call.body, "\"fail\"");
            TriremeOpenAiAnswer answer = { .status = fails ? 418 : 200, .body = text(fails
                ? "{\"error\": {\"message\": \"no tea\", \"type\": \"teapot\", \"param\": null, \"code\": null}}" : "{\"object\": \"witness\"}") };
            openai->send(items[n].responder, &answer, TriremeResponseFlags_FINAL);
            host->responder->release(items[n].responder), host->request->release(items[n].request);
            continue;
        }
        struct report *report = calloc(1, sizeof *report);
        report->item = items[n];
        say(report, "settings", settings, strlen(settings));
        say(report, "model", instance->model->about, strlen(instance->model->about));
        say(report, "instance", instance->about, strlen(instance->about));
        of_request(report, host->request, items[n].request);
        of_host(report, (struct model *)instance->model);
        host->request->release_after(items[n].request, 0);
        ask(report);
    }
    return OK;
}

static TriremeStatus failure(const char *what) {
    return (TriremeStatus){ .code = TriremeStatusCode_INTERNAL, .message = { (const uint8_t *)what, strlen(what), NULL, NULL } };
}

static TriremeStatus create(TriremeBackendArgsPtr args, void **out) {
    host = args->host.vtable, context = args->host.context;
    bls = host->extension(context, text(TRIREME_BLS_1));
    metrics = host->extension(context, text(TRIREME_METRICS_1));
    openai = host->extension(context, text(TRIREME_OPENAI_1));
    if (bls == NULL || metrics == NULL || openai == NULL) return failure("this host lacks an extension of version 1.0");
    snprintf(settings, sizeof settings, "%.*s", (int)args->config_json.len, (const char *)args->config_json.data);
    *out = (void *)host;
    return OK;
}

static TriremeStatus propose(void *backend, TriremeModelArgsPtr args, TriremeOwnedText *out) {
    (void)backend, (void)args;
    static const char patch[] = "{\"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1]}],"
                                " \"output\": [{\"name\": \"REPORT\", \"data_type\": \"TYPE_STRING\", \"dims\": [1]}]}";
    *out = (TriremeOwnedText){ (const uint8_t *)patch, sizeof patch - 1, NULL, NULL };
    return OK;
}

static TriremeStatus load(void *backend, TriremeModelArgsPtr args, void **out) {
    (void)backend;
    struct model *model = calloc(1, sizeof *model);
    snprintf(model->about, sizeof model->about, "%.*s %lld %.*s %.*s %d", (int)args->name.len, (const char *)args->name.data,
             (long long)args->version, (int)args->model_dir.len, (const char *)args->model_dir.data,
             (int)args->version_dir.len, (const char *)args->version_dir.data, args->config_json.len > 2);
    static const double bounds[2] = { 0.1, 1 };
    TriremeSeriesDesc desc = { .struct_size = sizeof desc, .name = text("witness_seconds"), .help = text("Time."),
                               .kind = TriremeMetricKind_HISTOGRAM, .bounds = bounds, .bound_count = 2 };
    model->set = metrics->open(context);
    TriremeStatus status = metrics->add(model->set, &desc, &model->seconds);
    if (status.code != TriremeStatusCode_OK) return status;
    *out = model;
    return OK;
}

static void unload(void *object) {
    struct model *model = object;
    metrics->close(model->set);
    free(model);
}

static TriremeStatus new_instance(void *model, TriremeInstanceArgsPtr args, void **out) {
    struct instance *instance = calloc(1, sizeof *instance);
    instance->model = model;
    snprintf(instance->about, sizeof instance->about, "%.*s %u %u %d", (int)args->name.len, (const char *)args->name.data, args->index, args->kind, args->device);
    *out = instance;
    return OK;
}

static const void *extension_of_model(void *model, TriremeStrView id) {
    (void)model;
    static const TriremeStrView endpoints[1] = { { (const uint8_t *)"completions", 11 } };
    static const TriremeOpenAiModel half = { sizeof half, endpoints, 1 };
    return is(id, TRIREME_OPENAI_1) ? &half : NULL;
}
static const void *extension_of_backend(void *backend, TriremeStrView id) { (void)backend, (void)id; return NULL; }
static void info(TriremeBackendInfoPtr info) { info->devices = 1, info->kind_chooses_device = 1, info->max_in_flight = 4; }
static void nothing(void *object) { (void)object; }

static const TriremeInstanceVtable INSTANCE = { sizeof INSTANCE, execute, nothing, free };
static const TriremeModelVtable MODEL = { sizeof MODEL, new_instance, unload, extension_of_model };
static const TriremeBackendVtable BACKEND = { sizeof BACKEND, &MODEL, &INSTANCE, info, create, nothing, propose, load, extension_of_backend };
const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, .struct_size = sizeof(TriremeProbe),
    .abi_major = 1, .abi_minor = 0, .panic = TriremePanicStrategy_NONE,
    .name = "witness", .version = "1.0", .sdk = "C", .vtable = &BACKEND };
