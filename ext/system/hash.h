/* FNV-1a, to tell whether two pieces of data are the same.  It does not protect against
   anyone who sets out to deceive it. */
#ifndef PYKEYUPDATE_HASH_H
#define PYKEYUPDATE_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint32_t
ku_hash(const void *data, size_t length)
{
    const unsigned char *bytes = data;
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length; i++) {
        hash = (hash ^ bytes[i]) * 16777619u;
    }
    return hash;
}

#endif
