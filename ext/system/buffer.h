/* Bytes in memory that is given back when they have been taken. */
#ifndef PYKEYUPDATE_BUFFER_H
#define PYKEYUPDATE_BUFFER_H

#include <stddef.h>

struct ku_buffer {
    char *memory;
    size_t start, end; /* the bytes are memory[start:end] */
    size_t size;
    int lent; /* somebody writes at memory[end]: it must stay where it is */
};

static inline size_t
ku_buffer_length(const struct ku_buffer *buffer)
{
    return buffer->end - buffer->start;
}

/* Make room for `length` more bytes at memory[end]; NULL without memory. */
char *ku_buffer_reserve(struct ku_buffer *buffer, size_t length);

/* Append a copy; 0, or -1 without memory. */
int ku_buffer_append(struct ku_buffer *buffer, const char *data, size_t length);

/* Forget the first `length` bytes; with the last one the memory goes. */
void ku_buffer_drop(struct ku_buffer *buffer, size_t length);

/* Copy at most `length` bytes out, and forget them. */
size_t ku_buffer_take(struct ku_buffer *buffer, char *data, size_t length);

#endif
