/* A queue of bytes that frees its memory once it is empty. */
#ifndef PYKEYUPDATE_BUFFER_H
#define PYKEYUPDATE_BUFFER_H

#include <stddef.h>

struct ku_buffer {
    char *memory;
    size_t start, end; /* the bytes are memory[start:end] */
    size_t size;
    int lent; /* somebody is writing at memory[end]: keep it */
};

static inline size_t
ku_buffer_length(const struct ku_buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* Make room for `length` more bytes.  Returns memory[end], where they go, or NULL if
   out of memory.  The caller writes them and moves `end`. */
char *ku_buffer_reserve(struct ku_buffer *buffer, size_t length);

/* Append a copy of `data`.  Returns 0, or -1 if out of memory. */
int ku_buffer_append(struct ku_buffer *buffer, const char *data, size_t length);

/* Remove the first `length` bytes.  Frees the memory if none are left, unless it is
   lent. */
void ku_buffer_drop(struct ku_buffer *buffer, size_t length);

/* Move at most `length` bytes into `data`.  Returns how many. */
size_t ku_buffer_take(struct ku_buffer *buffer, char *data, size_t length);

#endif
