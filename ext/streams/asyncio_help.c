#include "streams/asyncio_help.h"

#include "keys/counted_io.h"
#include "openssl/questions.h"

#define MAX_HELD (1024 * 1024) /* one larger write is held: it is in memory anyway */

int
ku_asyncio_hold(struct ku_io *io, const char *data, size_t n)
{
    struct ku_buffer *held = &ku_io_object(io)->held;
    size_t there = ku_buffer_length(held);
    ManagedObject *self = ku_io_object(io);
    self->write_refused = there > 0 && there + n > MAX_HELD && !self->closing;
    if (self->write_refused) {
        return 0;
    }
    if (ku_buffer_append(held, data, n) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 1;
}

int
ku_asyncio_encrypt_held(struct ku_io *io, void *ignored, struct ku_outcome *outcome)
{
    (void)ignored;
    struct ku_buffer *held = &ku_io_object(io)->held;
    size_t n = ku_buffer_length(held), written;
    if (n == 0 || ku_io_is_renegotiating(io)) {
        return 1;
    }
    *outcome = ku_counted_write(&io->tls, held->memory + held->start, n, &written);
    if (outcome->refusal != KU_OK) {
        return 0;
    }
    ku_buffer_drop(held, written);
    return 1;
}

int
ku_asyncio_take_backlog(struct ku_io *io)
{
    ManagedObject *self = ku_io_object(io);
    if (!self->write_refused) {
        return 0;
    }
    self->write_refused = 0;
    PyObject *written = PyObject_CallMethod(io->self, "_write_backlog", NULL);
    Py_XDECREF(written);
    return written != NULL ? 0 : -1;
}

/* What has been refused is written again: by itself, but before Python 3.11. */
static int
write_refused_again(struct ku_io *io)
{
    int closing = ku_io_ask_object(io, "_is_closing");
    ku_io_object(io)->write_refused = 0;
    ku_io_object(io)->closing |= closing > 0;
    return closing < 0 ? -1 : ku_io_reads_again_soon(io);
}

int
ku_asyncio_release_held(struct ku_io *io)
{
    struct ku_outcome ignored = {.refusal = KU_OK};
    PyObject *type, *value, *traceback;
    if (ku_buffer_length(&ku_io_object(io)->held) == 0) {
        return 0;
    }
    PyErr_Fetch(&type, &value, &traceback);
    int done = ku_io_try(io, ku_asyncio_encrypt_held, NULL, 0, &ignored);
    if (done > 0 && ku_io_object(io)->write_refused
        && ku_buffer_length(&ku_io_object(io)->held) == 0) {
        done = write_refused_again(io);
    }
    if (done >= 0) {
        PyErr_Restore(type, value, traceback);
        return 0;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return -1;
}

int
ku_asyncio_end_renegotiation(struct ku_io *io, void *ignored,
                             struct ku_outcome *outcome)
{
    const struct ku_libssl *libssl = io->tls.libssl;
    char dropped[1024];
    size_t got = 1;
    while (ku_io_is_renegotiating(io) && got > 0) {
        got = 0;
        ku_clear_errors(libssl);
        if (libssl->SSL_read_ex(io->tls.ssl, dropped, sizeof(dropped), &got) != 1
            && ku_io_is_renegotiating(io)) {
            *outcome = ku_failed_io(&io->tls);
            return 0;
        }
    }
    libssl->ERR_clear_error();
    return ku_asyncio_encrypt_held(io, ignored, outcome);
}

int
ku_asyncio_waits_with_cut(struct ku_io *io)
{
    ManagedObject *self = ku_io_object(io);
    if (!ku_io_is_of_asyncio(io) || self->waits_with_cut) {
        return 0;
    }
    self->waits_with_cut = 1;
    return ku_io_reads_again_soon(io);
}
