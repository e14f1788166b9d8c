#include "system/buffer.h"

#include <stdlib.h>
#include <string.h>

#define MIN_SIZE 256

char *
ku_buffer_reserve(struct ku_buffer *buffer, size_t length)
{
    if (buffer->size - buffer->end >= length) {
        return buffer->memory + buffer->end;
    }
    if (buffer->start > 0) {
        memmove(buffer->memory, buffer->memory + buffer->start,
                ku_buffer_length(buffer));
        buffer->end -= buffer->start;
        buffer->start = 0;
    }
    if (length > (size_t)-1 - buffer->end) {
        return NULL;
    }
    size_t size = buffer->end + length;
    if (size < MIN_SIZE) {
        size = MIN_SIZE;
    }
    if (size > buffer->size && size < 2 * buffer->size) {
        size = 2 * buffer->size;
    }
    if (size > buffer->size) {
        char *memory = realloc(buffer->memory, size);
        if (memory == NULL) {
            return NULL;
        }
        buffer->memory = memory;
        buffer->size = size;
    }
    return buffer->memory + buffer->end;
}

int
ku_buffer_append(struct ku_buffer *buffer, const char *data, size_t length)
{
    char *room = ku_buffer_reserve(buffer, length);
    if (room == NULL) {
        return -1;
    }
    memcpy(room, data, length);
    buffer->end += length;
    return 0;
}

void
ku_buffer_drop(struct ku_buffer *buffer, size_t length)
{
    buffer->start += length;
    if (buffer->start == buffer->end && !buffer->lent) {
        free(buffer->memory);
        *buffer = (struct ku_buffer){0};
    }
}

size_t
ku_buffer_take(struct ku_buffer *buffer, char *data, size_t length)
{
    size_t there = ku_buffer_length(buffer);
    if (length > there) {
        length = there;
    }
    if (length > 0) { /* memory may be NULL when there is nothing */
        memcpy(data, buffer->memory + buffer->start, length);
        ku_buffer_drop(buffer, length);
    }
    return length;
}
