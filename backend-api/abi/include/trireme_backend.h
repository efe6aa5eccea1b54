

#ifndef TRIREME_BACKEND_H
#define TRIREME_BACKEND_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/**
 * Major version of the ABI. 0 means: not frozen, host and backend must agree on it exactly.
 */
#define TriremeABI_MAJOR 0

/**
 * Minor version; grows with each field, function or constant that is added.
 */
#define TriremeABI_MINOR 1

#endif  /* TRIREME_BACKEND_H */
