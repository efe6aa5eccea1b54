/* A library whose probe is right, but for what a test defines otherwise. It loads no model. */
#include "trireme_backend.h"

#ifndef MAGIC
#define MAGIC TRIREME_PROBE_MAGIC
#endif
#ifndef SIZE
#define SIZE sizeof(TriremeProbe)
#endif
#ifndef MAJOR
#define MAJOR TRIREME_ABI_MAJOR
#endif
#ifndef PANIC
#define PANIC TriremePanicStrategy_NONE
#endif
#ifndef TAG
#define TAG {0}
#endif
#ifndef NAME
#define NAME "probe"
#endif
#ifndef VERSION
#define VERSION "1"
#endif
#ifndef BACKEND
#define BACKEND &backend
#endif
#ifndef BACKEND_SIZE
#define BACKEND_SIZE sizeof(TriremeBackendVtable)
#endif
#ifndef MODEL
#define MODEL &model
#endif
#ifndef EXECUTE
#define EXECUTE execute
#endif
#ifndef LOAD
#define LOAD make
#endif
#ifndef INSTANCE_SIZE
#define INSTANCE_SIZE sizeof(TriremeInstanceVtable)
#endif

static void info(TriremeBackendInfo *out) {
    out->devices = 3;
    out->kind_chooses_device = 0;
    out->max_in_flight = 7;
}

/* Never called: a probe is all that these libraries are asked for. */
static TriremeStatus execute(void *i, const TriremeRequestItem *items, size_t n) { (void)i, (void)items, (void)n; return (TriremeStatus){ 0 }; }
static TriremeStatus create(TriremeBackendArgsPtr args, void **out) { (void)args, (void)out; return (TriremeStatus){ 0 }; }
static TriremeStatus make(void *of, TriremeModelArgsPtr args, void **out) { (void)of, (void)args, (void)out; return (TriremeStatus){ 0 }; }
static TriremeStatus new_instance(void *of, TriremeInstanceArgsPtr args, void **out) { (void)of, (void)args, (void)out; return (TriremeStatus){ 0 }; }
static TriremeStatus propose(void *b, TriremeModelArgsPtr args, TriremeOwnedText *out) { (void)b, (void)args, (void)out; return (TriremeStatus){ 0 }; }
static void nothing(void *object) { (void)object; }

static const TriremeInstanceVtable instance = {
    .struct_size = INSTANCE_SIZE, .execute = EXECUTE, .drain = nothing, .destroy = nothing};
static const TriremeModelVtable model = {
    .struct_size = sizeof(TriremeModelVtable), .create_instance = new_instance, .unload = nothing};
static const TriremeBackendVtable backend = {
    .struct_size = BACKEND_SIZE, .model = MODEL, .instance = &instance, .info = info, .create = create,
    .destroy = nothing, .complete_config = propose, .load = LOAD};
/* Some of them stay out when a test says so. */
void trireme_used(void);
void trireme_used(void) { (void)execute, (void)make; }
/* Each of the tables is used unless a test leaves it out. */
const void *const trireme_tables[] = {&backend, &model, &instance};

#ifndef NO_PROBE
const TriremeProbe trireme_backend_probe = {
    .magic = MAGIC, .struct_size = SIZE, .abi_major = MAJOR, .panic = PANIC, .name = NAME,
    .version = VERSION, .sdk = "C", .layout_tag = TAG, .vtable = BACKEND};
#endif
