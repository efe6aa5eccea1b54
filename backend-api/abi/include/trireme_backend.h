/* The ABI between the Trireme server and a backend library, for authors in C.
 *
 * Made from the crate `trireme-abi`; not edited by hand. A library exports the static
 *
 *     const TriremeProbe trireme_backend_probe = { .magic = TRIREME_PROBE_MAGIC, ... };
 *
 * with `layout_tag` all zero, `layout` NULL and `panic` TriremePanicStrategy_NONE, is called
 * `libtrireme_<name>.so`, and is never unloaded. */

#ifndef TRIREME_BACKEND_H
#define TRIREME_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What begins every TriremeProbe. */
#define TRIREME_PROBE_MAGIC { 'T', 'R', 'I', 'R', 'E', 'M', 'E', '\0' }

/* The ids of extensions, see `extension` of the tables. */
#define TRIREME_BLS_1 "bls/1"
#define TRIREME_DEVICE_1 "device/1"
#define TRIREME_FAULT_1 "fault/1"
#define TRIREME_METRICS_1 "metrics/1"
#define TRIREME_MODELS_1 "models/1"
#define TRIREME_OPENAI_1 "openai/1"

// Major version of the ABI: a host takes libraries of its own only.
#define TRIREME_ABI_MAJOR 1

// Minor version; grows with each field, function, constant or extension that is added. Nobody is refused for it.
#define TRIREME_ABI_MINOR 1

// An open enum: how a panic of the library behaves. One that the host does not know is taken as NONE.
typedef uint32_t TriremePanicStrategy;
// The language has none (C).
#define TriremePanicStrategy_NONE 0
#define TriremePanicStrategy_UNWIND 1
// Refused: a panic would end the server.
#define TriremePanicStrategy_ABORT 2

// An open enum of result codes. An unknown value is read as `StatusCode::UNKNOWN`.
typedef uint32_t TriremeStatusCode;
#define TriremeStatusCode_OK 0
#define TriremeStatusCode_UNKNOWN 1
// The backend's or the server's fault.
#define TriremeStatusCode_INTERNAL 2
#define TriremeStatusCode_NOT_FOUND 3
// The caller's fault.
#define TriremeStatusCode_INVALID_ARG 4
// Not now: try again later or elsewhere.
#define TriremeStatusCode_UNAVAILABLE 5
// Whoever was asked cannot do this, now or later.
#define TriremeStatusCode_UNSUPPORTED 6
#define TriremeStatusCode_ALREADY_EXISTS 7
// Nobody waits for it any more.
#define TriremeStatusCode_CANCELLED 8

// An owned text, UTF-8. The receiver calls `release(owner)` exactly once when `release` is not null.
//
// Whoever made the memory frees it: the two sides may have different allocators. `release`: `[any-thread]`.
typedef struct TriremeOwnedText {
  const uint8_t *data;
  // In bytes.
  size_t len;
  void *owner;
  void (*release)(void *owner);
} TriremeOwnedText;

// The result of a call that can fail. `message` is the receiver's to release; it is empty when `code` is
// `StatusCode::OK`.
typedef struct TriremeStatus {
  TriremeStatusCode code;
  // 0.
  uint32_t reserved;
  struct TriremeOwnedText message;
} TriremeStatus;

// A borrowed text: UTF-8, not terminated, valid for the call that it is handed to unless stated otherwise.
//
// `data` may be null when `len` is 0. Paths are texts too: what is not UTF-8 cannot be named.
typedef struct TriremeStrView {
  const uint8_t *data;
  // In bytes.
  size_t len;
} TriremeStrView;

// An open enum: where an instance runs. A backend that does not know the kind refuses the instance (UNSUPPORTED).
typedef uint32_t TriremeInstanceKind;
#define TriremeInstanceKind_CPU 1
#define TriremeInstanceKind_GPU 2
// The backend decides.
#define TriremeInstanceKind_MODEL 3

// What an instance is made with. The texts live until the call returns.
typedef struct TriremeInstanceArgs {
  size_t struct_size;
  // `<group>_<number in the group>`.
  struct TriremeStrView name;
  // Number of the instance within its model version, from 0.
  uint32_t index;
  TriremeInstanceKind kind;
  // Number of the GPU for `InstanceKind::GPU`, otherwise 0.
  int32_t device;
  // 0.
  uint32_t reserved;
} TriremeInstanceArgs;

// A pointer to `InstanceArgs`, valid for the call.
typedef const struct TriremeInstanceArgs *TriremeInstanceArgsPtr;

// The functions of a loaded model.
typedef struct TriremeModelVtable {
  size_t struct_size;
  // `[instance-thread of the new one]` Instances of a model may be made concurrently.
  struct TriremeStatus (*create_instance)(void *model, TriremeInstanceArgsPtr args, void **out);
  // `[any-thread]` Once, after all instances are destroyed; usually on the thread of the last one.
  void (*unload)(void *model);
  // `[any-thread]` As `BackendVtable::extension`; valid until the model is unloaded.
  const void *(*extension)(void *model, struct TriremeStrView id);
} TriremeModelVtable;

// A pointer to a `ModelVtable`, valid until the process ends.
typedef const struct TriremeModelVtable *TriremeModelVtablePtr;

// A request as the host holds it; opaque to a backend.
typedef struct TriremeRequestHandle TriremeRequestHandle;

// The right to answer one request; opaque to a backend.
//
// Released without a response that carries `ResponseFlags::FINAL`, the host answers INTERNAL in its place.
typedef struct TriremeResponderHandle TriremeResponderHandle;

// One entry of a batch. The backend owns both halves and releases both, in any order and from any thread.
//
// The inputs live until `request` is released; the right to answer lives as long as `responder`. It lies in arrays, so it
// never grows: what is new is asked of the handles.
typedef struct TriremeRequestItem {
  struct TriremeRequestHandle *request;
  struct TriremeResponderHandle *responder;
} TriremeRequestItem;

// The functions of an instance. Never called concurrently for one instance.
typedef struct TriremeInstanceVtable {
  size_t struct_size;
  // `[instance-thread]` Runs a batch of `count` requests, 1 or more. Takes all of them, also when something goes wrong:
  // each is answered through its responder. May return before the answers are sent. `items` itself is the host's.
  // The result says whether the instance can go on: anything but OK makes the host destroy and replace it.
  struct TriremeStatus (*execute)(void *instance, const struct TriremeRequestItem *items, size_t count);
  // `[instance-thread]` Returns when the instance holds no request any more. Batches may follow.
  void (*drain)(void *instance);
  // `[instance-thread]` The last call. After `drain`, unless `execute` failed or the load was given up; requests that
  // it still holds are to be released.
  void (*destroy)(void *instance);
} TriremeInstanceVtable;

// A pointer to an `InstanceVtable`, valid until the process ends.
typedef const struct TriremeInstanceVtable *TriremeInstanceVtablePtr;

// What a backend says of itself; filled by `BackendVtable::info`. Its name and version are in the
// `Probe`(crate::Probe). The host has put the defaults there before the call; a field that is not written keeps them.
typedef struct TriremeBackendInfo {
  // Set by the host before the call: what it can read.
  size_t struct_size;
  // Bit set: 1 = runs on a CPU (default), 2 = runs on a GPU. `KIND_GPU` is refused without the second. Other bits mean
  // nothing to a host that does not know them.
  uint32_t devices;
  // Whether `instance_group.kind` chooses the device (not 0, default) or the backend decides by itself (0).
  uint32_t kind_chooses_device;
  // How many requests an instance may hold unanswered after `execute` has returned. 0: the instance is busy until
  // `execute` returns, and then free, whatever it still holds (default).
  uint32_t max_in_flight;
  // 0.
  uint32_t reserved;
  // Bit set of the kinds of memory that inputs may be in: `1 << kind` of each `MemoryKind`; CPU is always among them
  // (default: only CPU). With GPU, an instance of `KIND_GPU` may be given inputs in memory of its own device; what is
  // elsewhere is copied before it gets the request. `RequestVtable::gather` brings any input where it is wanted. Other
  // bits mean nothing to a host that does not know them.
  uint64_t input_kinds;
} TriremeBackendInfo;

// A pointer to `BackendInfo`, valid for the call.
typedef struct TriremeBackendInfo *TriremeBackendInfoPtr;

// An open enum of element types; the numbers are those of `inference.DataType`. Elements are in the byte order of the
// machine, without gaps. A host answers INTERNAL in the place of an output of a type that it does not know, a backend
// UNSUPPORTED to an input.
typedef uint32_t TriremeDType;
// One byte, 0 or 1.
#define TriremeDType_BOOL 1
#define TriremeDType_UINT8 2
#define TriremeDType_UINT16 3
#define TriremeDType_UINT32 4
#define TriremeDType_UINT64 5
#define TriremeDType_INT8 6
#define TriremeDType_INT16 7
#define TriremeDType_INT32 8
#define TriremeDType_INT64 9
#define TriremeDType_FP16 10
#define TriremeDType_FP32 11
#define TriremeDType_FP64 12
// Elements of varying length, each a little-endian `u32` length and that many bytes.
#define TriremeDType_BYTES 13
#define TriremeDType_BF16 14

// What a backend can know of an input without touching its data. The views live until the request is released.
typedef struct TriremeInputInfo {
  struct TriremeStrView name;
  TriremeDType dtype;
  // Number of buffers that hold the data, one after the other; at least 1 unless `byte_size` is 0. Each may begin and end
  // at any byte, also within an element.
  uint32_t buffer_count;
  // `rank` dimensions, none negative; batch dimension first if the model batches. The product times the element size
  // equals `byte_size`; for BYTES it is the number of elements that `byte_size` bytes hold.
  const int64_t *shape;
  size_t rank;
  size_t byte_size;
} TriremeInputInfo;

// An open enum: what kind of memory a pointer names. Memory of a kind that one does not know is not touched: a host
// answers INTERNAL in its place, a backend fails the request (UNSUPPORTED); its `release` is called all the same.
typedef uint32_t TriremeMemoryKind;
// Ordinary memory of the process.
#define TriremeMemoryKind_CPU 0
// Page-locked memory of the process.
#define TriremeMemoryKind_CPU_PINNED 1
// Memory of GPU `device`, in that device's primary context.
#define TriremeMemoryKind_GPU 2
// Shared memory: `fd` and `fd_offset` are valid too; `data` is its mapping in this process.
#define TriremeMemoryKind_SHARED 3

// Memory lent to the reader, not to be written: valid until the object that it came from is released. The fields are those
// of `Buffer`.
typedef struct TriremeBufferView {
  const void *data;
  // In bytes.
  size_t len;
  TriremeMemoryKind kind;
  int32_t device;
  // As in `Buffer`; valid as long as the memory.
  uint64_t ready_event;
  int32_t fd;
  uint32_t reserved;
  uint64_t fd_offset;
} TriremeBufferView;

// Owned memory. Holding one tells you: `data .. data + len` stays readable until `release` is called, after
// `ready_event` (if not 0) has passed on a device. Nothing is said of its alignment. Only memory that an `allocate` gave may
// be written to, and only until it is handed over: others may read the same bytes.
//
// Moving a `Buffer` across the boundary moves the duty to release it. Who hands a buffer on may hand on a part of it: `data`
// and `len` within what was given, all else as it was. `release` may be null: nothing to do. `data` may be null when `len`
// is 0.
typedef struct TriremeBuffer {
  void *data;
  // In bytes.
  size_t len;
  TriremeMemoryKind kind;
  // Device number for `MemoryKind::GPU`; for `MemoryKind::CPU_PINNED` that of its events; otherwise 0.
  int32_t device;
  // 0, or an event of the device that the reader waits for (see `DeviceVtable`). Valid until release.
  // Memory of other kinds has none.
  uint64_t ready_event;
  // File descriptor for `MemoryKind::SHARED`, of no meaning (-1) for others. Borrowed: valid until release.
  int32_t fd;
  // 0.
  uint32_t reserved;
  // Where in the file `data` begins, in bytes.
  uint64_t fd_offset;
  // For `release` only.
  void *owner;
  // Gives the memory back: `done_event` is 0 or an event of the device after which the consumer no longer uses it,
  // so that it is not reused under a running stream. The event is lent until the call returns. `[any-thread]` Called
  // once; maybe from within the call that handed the buffer over, so no lock may be held there that it needs; also after
  // the instance and the model that made it are gone.
  void (*release)(void *owner, uint64_t done_event);
} TriremeBuffer;

// An open enum: which member of `Parameter` holds the value; the others are 0 or empty. A backend skips a parameter of a
// kind that it does not know; a host answers INTERNAL in the place of a response with one.
typedef uint32_t TriremeParameterKind;
#define TriremeParameterKind_STRING 0
#define TriremeParameterKind_INT 1
// `int_value` is 0 or 1.
#define TriremeParameterKind_BOOL 2
#define TriremeParameterKind_DOUBLE 3

// A named value of a request or of a response.
typedef struct TriremeParameter {
  struct TriremeStrView name;
  TriremeParameterKind kind;
  // 0.
  uint32_t reserved;
  int64_t int_value;
  double double_value;
  struct TriremeStrView string_value;
} TriremeParameter;

// How a backend reads a request. All functions: `[any-thread & request not released]`; views that they give live until
// `release`. On an error `out` is not written.
typedef struct TriremeRequestVtable {
  size_t struct_size;
  // The id that the client gave, or empty.
  struct TriremeStrView (*id)(const struct TriremeRequestHandle *request);
  size_t (*input_count)(const struct TriremeRequestHandle *request);
  // Inputs are ordered as in the model's configuration; an optional input that is absent is left out.
  // INVALID_ARG if `index` is out of range.
  struct TriremeStatus (*input)(const struct TriremeRequestHandle *request,
                                size_t index,
                                struct TriremeInputInfo *out);
  // Piece `buffer` of input `index`. INVALID_ARG if either is out of range.
  struct TriremeStatus (*input_buffer)(const struct TriremeRequestHandle *request,
                                       size_t index,
                                       size_t buffer,
                                       struct TriremeBufferView *out);
  // The whole input in one buffer of the given kind, 64-byte aligned, not to be written to; copies only if it must. The
  // caller releases it, maybe after the request. Memory of the process is ready when this returns; memory of a device may
  // have a `ready_event`. INVALID_ARG if `index` is out of range; UNSUPPORTED for kinds without a provider.
  struct TriremeStatus (*gather)(const struct TriremeRequestHandle *request,
                                 size_t index,
                                 TriremeMemoryKind kind,
                                 int32_t device,
                                 struct TriremeBuffer *out);
  size_t (*parameter_count)(const struct TriremeRequestHandle *request);
  // INVALID_ARG if `index` is out of range.
  struct TriremeStatus (*parameter)(const struct TriremeRequestHandle *request,
                                    size_t index,
                                    struct TriremeParameter *out);
  // Whether the client wants output number `output` (as in the configuration). Unknown numbers are not wanted. An output
  // that is not wanted may be left out of a response.
  bool (*output_wanted)(const struct TriremeRequestHandle *request, size_t output);
  // Elements in the batch dimension; 1 if the model does not batch.
  uint32_t (*batch_size)(const struct TriremeRequestHandle *request);
  // 0 if none was given; smaller is more urgent.
  uint64_t (*priority)(const struct TriremeRequestHandle *request);
  // When the time of the request is over, by `HostVtable::now_ns`; 0: never. It is then not cancelled by itself: a backend
  // that looks may give it up (UNAVAILABLE).
  uint64_t (*deadline_ns)(const struct TriremeRequestHandle *request);
  // 0 if none; see `correlation_text` for textual ids.
  uint64_t (*correlation_id)(const struct TriremeRequestHandle *request);
  // Empty if the id of the sequence is a number, or there is none.
  struct TriremeStrView (*correlation_text)(const struct TriremeRequestHandle *request);
  // W3C `traceparent`, or empty.
  struct TriremeStrView (*trace_parent)(const struct TriremeRequestHandle *request);
  // Once: gives the request back; its views and input memory are gone with it.
  void (*release)(struct TriremeRequestHandle *request);
  // As `release`, for inputs on a device that are still being read: their memory is not reused before `done_event`, which
  // is an event of their device, lent until the call returns. 0 is none. Not for inputs that the CPU reads.
  void (*release_after)(struct TriremeRequestHandle *request, uint64_t done_event);
} TriremeRequestVtable;

// A pointer to the host's `RequestVtable`, valid until the process ends.
typedef const struct TriremeRequestVtable *TriremeRequestVtablePtr;

// An open enum: what the host says to a response. One that the backend does not know is taken as CONTINUE.
typedef uint32_t TriremeSendVerdict;
// Accepted.
#define TriremeSendVerdict_CONTINUE 0
// Accepted, but the reader is slow: wait for the `on_writable` callback before the next one.
#define TriremeSendVerdict_PAUSE 1
// Accepted, but nobody waits for more: stop computing and send FINAL.
#define TriremeSendVerdict_CANCELLED 2
// Dropped: FINAL has been sent already, or the response was malformed.
#define TriremeSendVerdict_CLOSED 3

// An output of a response. `buffer` moves to the host with the call, whatever its result; its length is exactly that of
// shape × type, for BYTES that of the elements. One that is not in the configuration makes the response INTERNAL; one that
// the client does not want is left out.
typedef struct TriremeOutputTensor {
  // At most 4096 bytes.
  struct TriremeStrView name;
  TriremeDType dtype;
  // 0.
  uint32_t reserved;
  // `rank` dimensions, none negative; batch dimension first if the model batches. Copied.
  const int64_t *shape;
  // At most 64.
  size_t rank;
  struct TriremeBuffer buffer;
} TriremeOutputTensor;

// One answer: outputs, or an error if `code` is not `StatusCode::OK`; then it has no outputs that anybody sees, and is
// the last one. It grows only by a bit of `ResponseFlags` that says what follows it.
typedef struct TriremeResponse {
  // May be null when `output_count` is 0.
  struct TriremeOutputTensor *outputs;
  // At most 4096.
  size_t output_count;
  // Copied. May be null when `parameter_count` is 0.
  const struct TriremeParameter *parameters;
  // At most 4096.
  size_t parameter_count;
  TriremeStatusCode code;
  // 0.
  uint32_t reserved;
  // What the client is told of an error; copied.
  struct TriremeStrView message;
} TriremeResponse;

// A bit set. Bits that the host does not know mean nothing to it.
typedef uint32_t TriremeResponseFlags;
#define TriremeResponseFlags_NONE 0
// The last response of this request. Of a model that is not decoupled only one response may have outputs.
#define TriremeResponseFlags_FINAL 1

// A callback of a backend. It is called exactly once: when a paused responder may send again, when its request is cancelled
// or, at the latest, when the host forgets the request.
typedef struct TriremeWritable {
  // `[any-thread]` Maybe from within `on_writable`. It may call the host, for this responder too.
  void (*call)(void *user);
  void *user;
} TriremeWritable;

// An open enum: points in the life of an execution, for the statistics. One that the host does not know is not counted.
typedef uint32_t TriremeStage;
// The inputs are gathered, computing starts.
#define TriremeStage_COMPUTE_START 1
// Computing has ended, the outputs are being made.
#define TriremeStage_COMPUTE_END 2

// How a backend answers. All functions: `[any-thread & responder not released]`; calls for one responder are not
// made concurrently, except `cancelled`.
typedef struct TriremeResponderVtable {
  size_t struct_size;
  // Memory for an output, made by the host where its consumer wants it (64-byte aligned host memory, the client's
  // shared memory, or the next step's input). `kind` and `device` say what the backend can write to; the result
  // may be of kind CPU_PINNED or CPU instead, if its consumer does not read that device: look at the buffer. Every byte is
  // to be written before it is sent, or before the `ready_event` that it is sent with. A buffer that is not sent is released
  // by the caller.
  struct TriremeStatus (*allocate)(struct TriremeResponderHandle *responder,
                                   struct TriremeStrView name,
                                   size_t byte_size,
                                   TriremeMemoryKind kind,
                                   int32_t device,
                                   struct TriremeBuffer *out);
  // Sends a response. The buffers of its outputs move to the host; texts and shapes are copied. A null pointer is a
  // response without outputs, as for a FINAL that ends a stream.
  TriremeSendVerdict (*send)(struct TriremeResponderHandle *responder,
                             struct TriremeResponse *response,
                             TriremeResponseFlags flags);
  // Asks for one call of `callback`; at once if the responder is writable already.
  void (*on_writable)(struct TriremeResponderHandle *responder, struct TriremeWritable callback);
  // Where to look for a cancellation: a `u32` that is 0 until nobody waits for the answer any more. Read it
  // atomically; valid until the responder is released.
  const uint32_t *(*cancelled)(const struct TriremeResponderHandle *responder);
  // Notes the time of a stage for the statistics, in nanoseconds of `CLOCK_MONOTONIC`; 0 means now.
  void (*mark)(struct TriremeResponderHandle *responder, TriremeStage stage, uint64_t time_ns);
  // Once, the last use: `cancelled`'s address is gone too. Without FINAL or an error before it, the host answers INTERNAL.
  void (*release)(struct TriremeResponderHandle *responder);
} TriremeResponderVtable;

// A pointer to the host's `ResponderVtable`, valid until the process ends.
typedef const struct TriremeResponderVtable *TriremeResponderVtablePtr;

// An open enum of log levels, most severe first. A level that the host does not know is taken as VERBOSE.
typedef uint32_t TriremeLogLevel;
#define TriremeLogLevel_ERROR 1
#define TriremeLogLevel_WARN 2
#define TriremeLogLevel_INFO 3
#define TriremeLogLevel_VERBOSE 4

// An open enum of metric kinds. One that the host does not know is refused.
typedef uint32_t TriremeMetricKind;
#define TriremeMetricKind_COUNTER 0
#define TriremeMetricKind_GAUGE 1
// Only in sets of the extension `metrics/1`.
#define TriremeMetricKind_HISTOGRAM 2

// A metric that a backend wants to show; lent. `labels` is a list of `label_count` pairs: name, value, name, value …
// It never grows: what more can be said of a metric is in `metrics/1`.
typedef struct TriremeMetricDesc {
  // A Prometheus name.
  struct TriremeStrView name;
  struct TriremeStrView help;
  TriremeMetricKind kind;
  // 0.
  uint32_t reserved;
  const struct TriremeStrView *labels;
  // Pairs, at most 4096.
  size_t label_count;
} TriremeMetricDesc;

// Where the value of a metric is kept: the bits of an `f64`, read and written atomically. Lives until the process ends.
typedef uint64_t *TriremeMetricCell;

// What the host offers to a backend. All functions: `[any-thread]`, also from within a call of the backend and from within
// its callbacks, until the process ends. `context` is always `HostRef::context`.
typedef struct TriremeHostVtable {
  size_t struct_size;
  TriremeRequestVtablePtr request;
  TriremeResponderVtablePtr responder;
  // Least severe level that is written, a `u32` to be read atomically before a message is formatted.
  const uint32_t *(*log_level)(const void *context);
  // Writes a line. `source` is the module that speaks.
  void (*log)(const void *context,
              TriremeLogLevel level,
              struct TriremeStrView source,
              struct TriremeStrView message);
  // Registers a metric or finds it again (same name and labels: same cell).
  struct TriremeStatus (*metric)(const void *context,
                                 const struct TriremeMetricDesc *desc,
                                 TriremeMetricCell *out);
  // 64-byte aligned memory, every byte zero, that the caller may write to, and releases. UNSUPPORTED for kinds without a
  // provider.
  struct TriremeStatus (*allocate)(const void *context,
                                   TriremeMemoryKind kind,
                                   int32_t device,
                                   size_t byte_size,
                                   struct TriremeBuffer *out);
  // Nanoseconds of the clock that deadlines and marks are given in, `CLOCK_MONOTONIC`.
  uint64_t (*now_ns)(const void *context);
  // The host's half of the extension `id` ("name/REV"), or null: it has none.
  const void *(*extension)(const void *context, struct TriremeStrView id);
} TriremeHostVtable;

// A pointer to the `HostVtable`, valid until the process ends.
typedef const struct TriremeHostVtable *TriremeHostVtablePtr;

// The host as a backend sees it. `context` is the first argument of every function.
typedef struct TriremeHostRef {
  const void *context;
  TriremeHostVtablePtr vtable;
} TriremeHostRef;

// What a backend is made with.
typedef struct TriremeBackendArgs {
  size_t struct_size;
  struct TriremeHostRef host;
  // The settings of this backend, a JSON object `{"cmdline": {"name": "value", …}}`: those of the command line, those for
  // all backends among them, and what the server adds (`backend-directory`, …). All values are strings. Lives until
  // `create` returns; `host` lives until the process ends.
  struct TriremeStrView config_json;
} TriremeBackendArgs;

// A pointer to `BackendArgs`, valid for the call.
typedef const struct TriremeBackendArgs *TriremeBackendArgsPtr;

// What a model is loaded with. The texts live until the call returns.
typedef struct TriremeModelArgs {
  size_t struct_size;
  struct TriremeStrView name;
  // Above 0.
  int64_t version;
  // The model's directory (that of `config.pbtxt`).
  struct TriremeStrView model_dir;
  // The version's directory.
  struct TriremeStrView version_dir;
  // The whole configuration as JSON, with protobuf's field names, defaults printed.
  struct TriremeStrView config_json;
} TriremeModelArgs;

// A pointer to `ModelArgs`, valid for the call.
typedef const struct TriremeModelArgs *TriremeModelArgsPtr;

// The functions of a backend library.
//
// In this and all other tables `last_prefix_field` marks the last function that every version of a major has; it never
// moves and is not null. What stands behind it may be left out: it is looked at only where `struct_size` covers it and it
// is not null.
//
// `backend`, `model` and `instance` are pointers that only the backend understands. An object outlives those made
// from it: instances are destroyed before their model, models before their backend.
typedef struct TriremeBackendVtable {
  size_t struct_size;
  TriremeModelVtablePtr model;
  TriremeInstanceVtablePtr instance;
  // `[any-thread]` Fills `info`, as far as `info.struct_size` reaches. Allowed before `create`, and more than once.
  void (*info)(TriremeBackendInfoPtr info);
  // `[load-thread]` Once after the library is loaded. On an error `out` is not written; so for all calls that make
  // something.
  struct TriremeStatus (*create)(TriremeBackendArgsPtr args, void **out);
  // `[any-thread]` Once, when the server ends and all models are gone. The library itself is never unloaded. A server
  // that has to end at once does not call it.
  void (*destroy)(void *backend);
  // `[load-thread]` Proposes what the configuration leaves open: `out` is a JSON object that may hold
  // `max_batch_size`, `input`, `output`, `dynamic_batching`, `model_transaction_policy`, `instance_group` and `extends`
  // (true: the tensors are added to those of the configuration), or an empty text. Anything else in it fails the load.
  // May run concurrently for different models.
  struct TriremeStatus (*complete_config)(void *backend,
                                          TriremeModelArgsPtr args,
                                          struct TriremeOwnedText *out);
  // `[load-thread]` Loads a model; may run concurrently for different models.
  struct TriremeStatus (*load)(void *backend, TriremeModelArgsPtr args, void **out);
  // `[any-thread]` The backend's half of the extension `id` ("name/REV"), or null; valid until the process ends.
  const void *(*extension)(void *backend, struct TriremeStrView id);
} TriremeBackendVtable;

// A pointer to a `BackendVtable`, valid until the process ends.
typedef const struct TriremeBackendVtable *TriremeBackendVtablePtr;

// The business card of a backend library, read before anything of it is called. Its shape never changes; a larger
// `struct_size` means that more follows.
//
// ```text
//   0 magic[8]   8 struct_size  12 abi_major  14 abi_minor  16 panic  20 reserved
//  24 name  32 version  40 sdk  48 layout_tag[16]  64 layout  72 vtable
// ```
typedef struct TriremeProbe {
  uint8_t magic[8];
  uint32_t struct_size;
  uint16_t abi_major;
  uint16_t abi_minor;
  TriremePanicStrategy panic;
  // 0.
  uint32_t reserved;
  // Name of the backend, `[A-Za-z0-9_-]+`, at most 256 characters, terminated. Equals the one in `libtrireme_<name>.so`.
  const char *name;
  // Version of the backend, for people, at most 256 characters, terminated.
  const char *version;
  // What it was built with, terminated: `"trireme-sdk 0.1.0"`, `"C"`.
  const char *sdk;
  // All zero for a library without a layout record (C): then only sizes are compared. A record of a kind that the host
  // cannot read is refused, so who is to be loaded by older hosts has this one or none.
  uint8_t layout_tag[16];
  // A `LayoutFn`.
  const void *(*layout)(void);
  TriremeBackendVtablePtr vtable;
} TriremeProbe;

// The right to call on behalf of a request; opaque to a backend.
typedef struct TriremeCallerHandle TriremeCallerHandle;

// Where the answers to a call go.
typedef struct TriremeCallReply {
  void *user;
  // `[any-thread]` Takes an answer; the buffers move to the backend, the text and the array live until the function
  // returns. Maybe from within `call`; never concurrently for one call; it may call the host. After the one with
  // `is_final` not 0 the host does not use `user` any more.
  void (*answer)(void *user,
                 struct TriremeStrView message,
                 struct TriremeBuffer *buffers,
                 size_t buffer_count,
                 uint32_t is_final);
} TriremeCallReply;

// The host's half of `bls/1`. All functions: `[any-thread]`.
typedef struct TriremeBlsVtable {
  size_t struct_size;
  // The right to call on behalf of the request that `responder` answers: deadline, cancellation and trace are
  // inherited. Never null. It may be used after the responder is released; a request that is answered can still ask.
  struct TriremeCallerHandle *(*open)(const struct TriremeResponderHandle *responder);
  // Asks a model: a text of at most 1 MiB, at most 4096 buffers. They move to the host, whatever the result. If it is
  // OK, `reply` is called at least once, and exactly once as final; it may be before this function returns. Otherwise it
  // is never called.
  struct TriremeStatus (*call)(const struct TriremeCallerHandle *caller,
                               struct TriremeStrView message,
                               struct TriremeBuffer *buffers,
                               size_t buffer_count,
                               struct TriremeCallReply reply);
  // The last use of `caller`. Its calls go on.
  void (*close)(struct TriremeCallerHandle *caller);
} TriremeBlsVtable;

// A device. The texts live until the process ends.
typedef struct TriremeDeviceInfo {
  // Set by the caller: what it can read.
  size_t struct_size;
  // The kind of its memory: `MemoryKind::GPU` in this version.
  TriremeMemoryKind kind;
  // Its number: that of `Buffer::device`, of `InstanceArgs` and of `instance_group.gpus`.
  int32_t device;
  // What addresses and events of it are: "cuda" for CUDA. Who does not know the platform touches neither.
  struct TriremeStrView platform;
  // What people call it. For logs.
  struct TriremeStrView name;
} TriremeDeviceInfo;

// Bytes somewhere. Nothing says who owns them.
typedef struct TriremeMemoryRange {
  void *data;
  // In bytes.
  size_t len;
  TriremeMemoryKind kind;
  // As `Buffer::device`.
  int32_t device;
} TriremeMemoryRange;

// Bytes of a device as another process of this machine can open them.
typedef struct TriremeIpcMemory {
  // The platform's handle of an allocation: 64 bytes on "cuda", as `cudaIpcGetMemHandle` gives them.
  const uint8_t *handle;
  // In bytes.
  size_t handle_len;
  // Where the range begins within the allocation, in bytes.
  uint64_t offset;
  uint64_t byte_size;
} TriremeIpcMemory;

// Both halves of `device/1`. `context` is the first argument of every function. All functions: `[any-thread]`; the table
// lives until the process ends, also after its backend is destroyed.
typedef struct TriremeDeviceVtable {
  size_t struct_size;
  void *context;
  // How many devices there are. A provider's number does not change.
  size_t (*device_count)(void *context);
  // Fills `out` as far as its `struct_size` reaches. INVALID_ARG if `index` is out of range.
  struct TriremeStatus (*device)(void *context, size_t index, struct TriremeDeviceInfo *out);
  // Memory of `device`, or (`MemoryKind::CPU_PINNED`) page-locked memory of the process for copies to and from it. It is
  // aligned to 256 bytes; what is in it is undefined in a provider's answer, and zero in the host's. `byte_size` is at least
  // 1. UNAVAILABLE if there is not so much.
  //
  // Its `release` may be called from any thread and does not give the memory to anybody else before `done_event`.
  struct TriremeStatus (*allocate)(void *context,
                                   TriremeMemoryKind kind,
                                   int32_t device,
                                   size_t byte_size,
                                   struct TriremeBuffer *out);
  // Copies `from` to `to`, which are of one length and do not overlap: between memory of a device, and between that and
  // memory of the process of any kind. The copy begins after the event `after`, if that is not 0.
  //
  // If `done` is null, the call returns when the bytes are there. Otherwise it may return before, and `done` becomes 0 (they
  // are there) or an event after which they are; both ranges must live until then. The event is the caller's.
  struct TriremeStatus (*copy)(void *context,
                               const struct TriremeMemoryRange *to,
                               const struct TriremeMemoryRange *from,
                               uint64_t after,
                               uint64_t *done);
  // Sets every byte of `to`, which is memory of a device, to `value`; `after` and `done` as in `copy`.
  struct TriremeStatus (*fill)(void *context,
                               const struct TriremeMemoryRange *to,
                               uint8_t value,
                               uint64_t after,
                               uint64_t *done);
  // `out` becomes one event of `device` that passes after all of `events` have. It is the caller's.
  struct TriremeStatus (*event_join)(void *context,
                                     int32_t device,
                                     const uint64_t *events,
                                     size_t count,
                                     uint64_t *out);
  // `out` becomes 1 if the event has passed, otherwise 0. An error if the work before it failed.
  struct TriremeStatus (*event_query)(void *context, int32_t device, uint64_t event, uint32_t *out);
  // Returns when the event has passed. An error if the work before it failed.
  struct TriremeStatus (*event_wait)(void *context, int32_t device, uint64_t event);
  // The last use of an event that this table made. It may not have passed yet.
  void (*event_destroy)(void *context, int32_t device, uint64_t event);
  // Lets another process open `range`, which is memory of a device: writes the handle to `handle`, which has room for
  // `capacity` bytes, and says in `out`, whose `handle` becomes that address, how long it is and where the range begins.
  // UNSUPPORTED if the memory is of a kind that cannot be shared. The memory must live until the other process has closed it.
  struct TriremeStatus (*ipc_export)(void *context,
                                     const struct TriremeMemoryRange *range,
                                     uint8_t *handle,
                                     size_t capacity,
                                     struct TriremeIpcMemory *out);
  // Opens memory of another process on `device`; the handle is lent. Releasing the buffer closes it. INVALID_ARG if the
  // handle is none, or the range is not within its allocation.
  struct TriremeStatus (*ipc_open)(void *context,
                                   int32_t device,
                                   const struct TriremeIpcMemory *memory,
                                   struct TriremeBuffer *out);
} TriremeDeviceVtable;

// The host's half of `fault/1`.
typedef struct TriremeFaultVtable {
  size_t struct_size;
  // `[any-thread]` A device is lost. `context` is `HostRef::context`; `message` is lent and says which device and what it
  // said; 4096 characters of it are kept. Returns at once; the first message of a process counts.
  void (*device_lost)(const void *context, struct TriremeStrView message);
} TriremeFaultVtable;

// A set of series; opaque to a backend.
typedef struct TriremeMetricSetHandle TriremeMetricSetHandle;

// A series that a backend wants to show.
typedef struct TriremeSeriesDesc {
  // Set by the backend: what it has filled.
  size_t struct_size;
  // A Prometheus name. A family has one kind; the help text is that of the first series.
  struct TriremeStrView name;
  struct TriremeStrView help;
  TriremeMetricKind kind;
  // 0.
  uint32_t reserved;
  // `label_count` pairs: name, value, name, value … At most 64.
  const struct TriremeStrView *labels;
  size_t label_count;
  // Of a histogram: `bound_count` upper bounds, finite and ascending; 1 to 64.
  const double *bounds;
  size_t bound_count;
} TriremeSeriesDesc;

// The host's half of `metrics/1`. All functions: `[any-thread]`.
typedef struct TriremeMetricsVtable {
  size_t struct_size;
  // An empty set, never null. `context` is `HostRef::context`. A set has at most 65536 series.
  struct TriremeMetricSetHandle *(*open)(const void *context);
  // Adds a series, which begins at zero. The description is lent. `out` becomes the first of its cells, which live until
  // the set is closed. The same name and labels within a set give the same cells. INVALID_ARG for a name that is not
  // Prometheus's, a second kind for one name, bounds that do not ascend or more than is allowed of anything.
  struct TriremeStatus (*add)(struct TriremeMetricSetHandle *set,
                              const struct TriremeSeriesDesc *desc,
                              TriremeMetricCell *out);
  // Ends the set: its series are shown no more. The last use of `set` and of its cells.
  void (*close)(struct TriremeMetricSetHandle *set);
} TriremeMetricsVtable;

// The host's half of `models/1`. All functions: `[any-thread]`; `context` is `HostRef::context`.
typedef struct TriremeModelsVtable {
  size_t struct_size;
  // Loads a model, or loads it anew: a text of at most 1 MiB, at most 1024 files. The buffers move to the host, whatever the
  // result. If it is OK, `reply` is called exactly once, as final and without buffers, when the model is ready or the load
  // has failed; it may be before this function returns. Otherwise it is never called. A host that does not let its models
  // be changed one by one answers UNAVAILABLE.
  struct TriremeStatus (*load)(const void *context,
                               struct TriremeStrView message,
                               struct TriremeBuffer *buffers,
                               size_t buffer_count,
                               struct TriremeCallReply reply);
  // Unloads a model; `reply` as of `load`, when the model takes no more requests. A model may name itself: it goes when
  // its requests are answered.
  struct TriremeStatus (*unload)(const void *context,
                                 struct TriremeStrView message,
                                 struct TriremeCallReply reply);
  // Whether a version of a model takes requests; of `version` 0 or less, whether any does. Writes 0 or 1 into `ready`
  // and does not wait. A model that nobody knows is not ready.
  struct TriremeStatus (*ready)(const void *context,
                                struct TriremeStrView model,
                                int64_t version,
                                uint32_t *ready);
} TriremeModelsVtable;

// A model's half: by having it, a model says that it takes such calls. Valid until the model is unloaded.
typedef struct TriremeOpenAiModel {
  size_t struct_size;
  // The endpoints that it answers, without the path before them: `chat/completions`, `completions`, `embeddings`.
  // Calls of others never come. At most 64 of 256 bytes each.
  const struct TriremeStrView *endpoints;
  size_t endpoint_count;
} TriremeOpenAiModel;

// A call; lives until its request is released.
typedef struct TriremeOpenAiCall {
  // One of `OpenAiModel::endpoints`.
  struct TriremeStrView endpoint;
  // A JSON object, as the client sent it.
  struct TriremeStrView body;
} TriremeOpenAiCall;

// An answer, or a part of one.
typedef struct TriremeOpenAiAnswer {
  // As in HTTP. From 400 on it is an error, and the last answer. A client that reads a stream sees the status of the
  // first answer only.
  // 200 to 599.
  uint32_t status;
  // 0.
  uint32_t reserved;
  // A JSON object of at most 256 MiB; copied.
  struct TriremeStrView body;
} TriremeOpenAiAnswer;

// The host's half of `openai/1`.
typedef struct TriremeOpenAiVtable {
  size_t struct_size;
  // `[any-thread & request not released]` Whether `request` is such a call; if so, `out` is written.
  bool (*read)(const struct TriremeRequestHandle *request, struct TriremeOpenAiCall *out);
  // `[any-thread & responder not released]` Sends an answer, as `ResponderVtable::send` does. An end that carries
  // nothing more, and a failure that has no object, go through that one.
  TriremeSendVerdict (*send)(struct TriremeResponderHandle *responder,
                             const struct TriremeOpenAiAnswer *answer,
                             TriremeResponseFlags flags);
} TriremeOpenAiVtable;

#endif  /* TRIREME_BACKEND_H */

#ifdef __cplusplus
extern "C" {
#endif
// The one symbol that a backend library exports.
extern const TriremeProbe trireme_backend_probe;
#ifdef __cplusplus
}
#endif
