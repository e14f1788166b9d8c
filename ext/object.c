/* pykeyupdate._keyupdate.ManagedObject: the reading and writing of a managed SSLObject.

   read() and write() are ssl.SSLObject's, with what RekeyPolicy and PeerLimits ask
   before and after.  They call OpenSSL directly: to go through those of the _SSLSocket
   inside costs more than all that is asked. */
#include "object.h"

#include "buffer.h"
#include "controls.h"
#include "handshake.h"
#include "managed.h"
#include "policy.h"
#include "reading.h"
#include "sslobject.h"
#include "step.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

/* Constants of OpenSSL's public headers, the same from 1.1.1 to 4.0. */
#define BIO_CTRL_PENDING 10
#define SSL_ERROR_SSL 1
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_SYSCALL 5
#define SSL_ERROR_ZERO_RETURN 6
#define SSL_READING 3

#define RECORD 16384  /* the most that SSL_read() gives at once */

/* Nothing of ours is in an object's dict, which so need not be there: from Python 3.13
   on it would be one of its own (350 bytes), because there are members in C.

   asyncio's transport is made for what `ssl` does, and three things are beyond it.
   When it closes it tries once to write what it has, and gives up what must wait for
   a renegotiation; it throws away what it has read in a turn in which a later read()
   raises; and it does not expect to be used in the middle of a read() or write(), by
   a handler of an event.  An object that belongs to one (`transport`) is helped: it
   takes data in a renegotiation and keeps it until that is done (`held`), it tells
   of a cut in the turn after, and what a handler has the transport call meanwhile is
   "not now" (SSLWantReadError), over which that keeps its data for later. */
typedef struct {
    PyObject_HEAD
    PyObject *inner;      /* the _ssl._SSLSocket, as `_sslobj` */
    PyObject *rules;      /* as `_rules` */
    PyObject *transport;  /* as `_transport`: weakref to asyncio's, or None */
    struct ku_buffer held;
    unsigned char waits_with_cut;
    unsigned char refused;    /* data that would have been too much to hold */
    unsigned char closing;    /* nothing is too much to hold, as the transport has it
                                 anyway; and nothing begins that its peer would find
                                 half done at the end, as a renegotiation */
} ManagedObject;

struct io {
    ku_state *state;
    PyObject *self, *inner;
    SSL *ssl;
    struct ku_record *record;
    const char *function;
    struct ku_news news;
};

/* The GIL is kept where OpenSSL has but little to do: to give it away and get it back
   takes a tenth of the time of a small write. */
#define LITTLE 4096

static PyObject *
raise_cut(struct io *io)
{
    struct ku_outcome outcome =
        ku_refused_because(KU_PEER_TOO_MUCH, io->record->why_cut);
    return ku_raise(io->state, &outcome, io->function, io->self);
}

static ManagedObject *
object_of(const struct io *io)
{
    return (ManagedObject *)io->self;
}

static int
is_of_asyncio(const struct io *io)
{
    PyObject *transport = object_of(io)->transport;
    return transport != NULL && transport != Py_None;
}

/* What a method of the object says: -1 with an exception. */
static int
ask_self(struct io *io, const char *method)
{
    PyObject *answer = PyObject_CallMethod(io->self, method, NULL);
    int is_true = answer == NULL ? -1 : answer == Py_True;
    Py_XDECREF(answer);
    return is_true;
}

/* Will a transport look again in its loop's next turn?  -1 with an exception. */
static int
reads_again_soon(struct io *io)
{
    return ask_self(io, "_read_again_soon");
}

/* While an on_impossible function is asked whether a write may go on, another one would
   come before it; and see above of what asyncio does not expect. */
static int
refuse_in_between(struct io *io, int writes)
{
    unsigned long asking = io->record->asking;
    struct ku_outcome outcome = {.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    if (asking == 0) {
        return 0;
    }
    if (asking != PyThread_get_thread_ident()) {
        outcome = ku_refused(KU_BUSY);
    }
    else if (is_of_asyncio(io)) {
        if (reads_again_soon(io) < 0) {
            return -1;
        }
    }
    else if (!writes) {
        return 0;
    }
    ku_raise(io->state, &outcome, io->function, io->self);
    return -1;
}

/* 0, or -1 with an exception; the caller gives back `inner` in both cases. */
static int
begin(struct io *io, PyTypeObject *defining, PyObject *self, const char *function)
{
    *io = (struct io){.self = self, .function = function};
    io->state = PyType_GetModuleState(defining);
    io->inner = ((ManagedObject *)self)->inner;
    Py_XINCREF(io->inner);
    if (io->inner != NULL && Py_TYPE(io->inner) == io->state->sslobject_type) {
        io->ssl = ku_sslobject_ssl(io->state, io->inner);
    }
    if (io->ssl != NULL) {
        io->record = ku_record_of(io->ssl);
    }
    if (io->record == NULL) {
        ku_refuse(io->state, KU_UNMANAGED, function, self);
        return -1;
    }
    if (io->record->why_cut != NULL) {
        raise_cut(io);
        return -1;
    }
    return refuse_in_between(io, strcmp(function, "write") == 0);
}

/* What is done in OpenSSL: 1, or 0 and the outcome. */
typedef int (*action)(struct io *io, void *argument, struct ku_outcome *outcome);

/* While one is under way any other is refused, of another thread's or of a callback's:
   it would break the connection, or crash.  (ssl's own objects let it.) */
static int
run_in_openssl(struct io *io, action action, void *argument, int has_little_to_do,
               struct ku_outcome *outcome)
{
    *outcome = ku_record_occupy(io->record);
    if (outcome->refusal != KU_OK) {
        return 0;
    }
    int keeps_gil = has_little_to_do && io->state->keeps_gil;
    PyThreadState *thread = keeps_gil ? NULL : PyEval_SaveThread();
    int done = action(io, argument, outcome);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
    ku_record_vacate(io->record);
    return done;
}

/* 1, or 0 and what came, or -1 with an exception. */
static int
try_in_openssl(struct io *io, action action, void *argument, int has_little_to_do,
               struct ku_outcome *outcome)
{
    int done;
    KU_HOLD(io->inner);
    done = run_in_openssl(io, action, argument, has_little_to_do, outcome);
    KU_RELEASE();
    return PyErr_Occurred() ? -1 : done;  /* a message callback's (_ssl of 3.15) */
}

/* OpenSSL 1.1.1 has no error for the end in the middle of a handshake over memory,
   which _ssl tells so. */
static int
raise_outcome(struct io *io, const struct ku_outcome *given)
{
    struct ku_outcome outcome = *given;
    if (outcome.refusal == KU_IO && outcome.value == SSL_ERROR_SYSCALL
        && outcome.error == 0 && !io->record->connected) {
        outcome.detail = "Some I/O error occurred";
    }
    if (io->record->why_cut != NULL) {
        raise_cut(io);
    }
    else {
        ku_raise(io->state, &outcome, io->function, io->self);
    }
    return -1;
}

static int
renew(struct io *io, void *ignored, struct ku_outcome *outcome)
{
    (void)ignored, (void)outcome;
    const struct ku_libssl *libssl = &io->state->libssl;
    if (!object_of(io)->closing && ku_policy_at_rest(libssl, io->ssl, io->record)) {
        libssl->ERR_clear_error();
        (void)libssl->SSL_do_handshake(io->ssl);
        libssl->ERR_clear_error();
    }
    return 1;  /* what fails shows in the next call */
}

/* New keys that are due are made now: this sends them in memory, and what carries
   the bytes looks after every read whether there are any.  0, or -1 with an exception
   of a callback's. */
static int
rest(struct io *io)
{
    struct ku_outcome ignored = {.refusal = KU_OK};
    int done = try_in_openssl(io, renew, NULL, 1, &ignored);
    return done < 0 ? -1 : 0;  /* busy: that call's, then */
}

/* As _ssl ends a read and a write: with what a _msg_callback, or the key log, has
   raised meanwhile.  The data that was read is lost then. */
static PyObject *
unless_callbacks_raised(struct io *io, PyObject *result)
{
    int of_data = result != NULL && strcmp(io->function, "read") == 0;
    PyObject *type, *value, *traceback;
    if (!io->record->has_callbacks) {
        return result;
    }
    PyErr_Fetch(&type, &value, &traceback);
    KU_HOLD(io->inner);
    if (ku_record_occupy(io->record).refusal == KU_OK) {
        (void)ku_raise_kept(io->state, io->inner, of_data);
        ku_record_vacate(io->record);
    }
    KU_RELEASE();
    ku_put_back(type, value, traceback);
    if (PyErr_Occurred()) {
        Py_CLEAR(result);
    }
    return result;
}

/* Tell what has happened meanwhile. */
static PyObject *
finish(struct io *io, PyObject *result)
{
    io->news.events |= ku_record_take_events(io->record);
    io->news.why_cut = io->record->why_cut;
    if (io->news.events == 0) {
        return result;
    }
    unsigned long asking = io->record->asking;
    if (is_of_asyncio(io)) {
        io->record->asking = PyThread_get_thread_ident();
    }
    if (ku_managed_tell(io->state, io->self, &io->news) < 0) {
        Py_CLEAR(result);
    }
    io->record->asking = asking;
    return result;
}

/* --- asyncio's ----------------------------------------------------------------- */

#define MOST_HELD (1024 * 1024)  /* but one write, which is in memory anyway */

static int
is_renegotiating(const struct io *io)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    return io->record->connected && libssl->SSL_version(io->ssl) != TLS1_3_VERSION
           && !libssl->SSL_is_init_finished(io->ssl) && !ku_has_failed(libssl, io->ssl);
}

/* Take data that cannot be encrypted now: 1, or 0 where it is too much, or -1 with an
   exception. */
static int
hold(struct io *io, const char *data, size_t n)
{
    struct ku_buffer *held = &object_of(io)->held;
    size_t there = ku_buffer_length(held);
    ManagedObject *self = object_of(io);
    self->refused = there > 0 && there + n > MOST_HELD && !self->closing;
    if (self->refused) {
        return 0;
    }
    if (ku_buffer_append(held, data, n) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 1;
}

/* Encrypt what is held, once it can be. */
static int
encrypt_held(struct io *io, void *ignored, struct ku_outcome *outcome)
{
    (void)ignored;
    const struct ku_libssl *libssl = &io->state->libssl;
    struct ku_buffer *held = &object_of(io)->held;
    size_t n = ku_buffer_length(held), written = 0;
    if (n == 0 || is_renegotiating(io)) {
        return 1;
    }
    ku_clear_errors(libssl);
    if (libssl->SSL_write_ex(io->ssl, held->memory + held->start, n, &written) != 1) {
        *outcome = ku_failed_io(libssl, io->ssl);
        return 0;
    }
    ku_record_sent(io->record, written);
    ku_buffer_drop(held, written);
    return 1;
}

/* The transport is closing: what has been refused it would not write again. */
static int
take_backlog(struct io *io)
{
    ManagedObject *self = object_of(io);
    if (!self->refused) {
        return 0;
    }
    self->refused = 0;
    PyObject *written = PyObject_CallMethod(io->self, "_write_backlog", NULL);
    Py_XDECREF(written);
    return written != NULL ? 0 : -1;
}

/* What has been refused is written again: by itself, but before Python 3.11. */
static int
write_refused_again(struct io *io)
{
    int closing = ask_self(io, "_is_closing");
    object_of(io)->refused = 0;
    object_of(io)->closing |= closing > 0;
    return closing < 0 ? -1 : reads_again_soon(io);
}

/* After a read, whatever it came to; what fails shows in the next call. */
static int
release_held(struct io *io)
{
    struct ku_outcome ignored = {.refusal = KU_OK};
    PyObject *type, *value, *traceback;
    if (ku_buffer_length(&object_of(io)->held) == 0) {
        return 0;
    }
    PyErr_Fetch(&type, &value, &traceback);
    int done = try_in_openssl(io, encrypt_held, NULL, 0, &ignored);
    if (done > 0 && object_of(io)->refused
        && ku_buffer_length(&object_of(io)->held) == 0) {
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

/* End the renegotiation that a close_notify has to wait for.  What data comes in front
   nobody will read: the transport is closing. */
static int
end_before_shutdown(struct io *io, void *ignored, struct ku_outcome *outcome)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    char dropped[1024];
    size_t got = 1;
    while (is_renegotiating(io) && got > 0) {
        got = 0;
        ku_clear_errors(libssl);
        if (libssl->SSL_read_ex(io->ssl, dropped, sizeof(dropped), &got) != 1
            && is_renegotiating(io)) {
            *outcome = ku_failed_io(libssl, io->ssl);
            return 0;
        }
    }
    libssl->ERR_clear_error();
    return encrypt_held(io, ignored, outcome);
}

/* The transport drops what it has read in a turn in which a read() raises.  So in this
   one there is nothing more to read, and in the next the cut is told. */
static int
waits_with_cut(struct io *io)
{
    ManagedObject *self = object_of(io);
    if (!is_of_asyncio(io) || self->waits_with_cut) {
        return 0;
    }
    self->waits_with_cut = 1;
    return reads_again_soon(io);
}

/* --- reading ------------------------------------------------------------------- */

struct reading {
    char *memory;
    size_t room, got;
};

/* A close_notify is the end of the data, unless we have sent ours: as in _ssl. */
static int
decrypt_some(struct io *io, void *argument, struct ku_outcome *outcome)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    struct reading *reading = argument;
    int begins = libssl->SSL_pending(io->ssl) == 0;
    ku_clear_errors(libssl);
    if (libssl->SSL_read_ex(io->ssl, reading->memory, reading->room, &reading->got)
        == 1) {
        ku_record_received(io->record, reading->got, begins);
        return 1;
    }
    *outcome = ku_failed_io(libssl, io->ssl);
    return outcome->value == SSL_ERROR_ZERO_RETURN && io->record->why_cut == NULL
           && libssl->SSL_get_shutdown(io->ssl) == SSL_RECEIVED_SHUTDOWN;
}

static int
raise_read(struct io *io, const struct ku_outcome *outcome)
{
    struct ku_outcome wants = {.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    if (io->record->why_cut == NULL) {
        return raise_outcome(io, outcome);
    }
    int waits = waits_with_cut(io);
    if (waits > 0) {
        ku_raise(io->state, &wants, io->function, io->self);
    }
    return waits == 0 ? raise_outcome(io, outcome) : -1;
}

static int
fill(void *argument, char *memory, size_t room, size_t *got)
{
    struct io *io = argument;
    const struct ku_libssl *libssl = &io->state->libssl;
    struct reading reading = {memory, room, 0};
    struct ku_outcome outcome = {.refusal = KU_OK};
    BIO *bio = libssl->SSL_get_rbio(io->ssl);
    long waiting = libssl->BIO_ctrl(bio, BIO_CTRL_PENDING, 0, NULL);
    int done = try_in_openssl(io, decrypt_some, &reading, waiting <= LITTLE, &outcome);
    *got = reading.got;
    return done > 0 ? 0 : done < 0 ? -1 : raise_read(io, &outcome);
}

/* read(len=1024, buffer=None), with keywords too. */
static int
read_arguments(PyObject *const *given, Py_ssize_t count, PyObject *names,
               PyObject **arguments)
{
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    if (count > 2) {
        PyErr_SetString(PyExc_TypeError, "read() takes a length and maybe a buffer");
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        arguments[i] = given[i];
    }
    for (Py_ssize_t i = 0; i < named; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        int which = PyUnicode_CompareWithASCIIString(name, "len") == 0      ? 0
                    : PyUnicode_CompareWithASCIIString(name, "buffer") == 0 ? 1
                                                                            : -1;
        if (which < count) {
            PyErr_Format(PyExc_TypeError, "read() got an unexpected argument %R", name);
            return -1;
        }
        arguments[which] = given[count + i];
    }
    return 0;
}

static PyObject *
managed_read(PyObject *self, PyTypeObject *defining, PyObject *const *given,
             Py_ssize_t count, PyObject *names)
{
    struct io io;
    PyObject *result = NULL;
    if (begin(&io, defining, self, "read") == 0) {
        PyObject *arguments[2] = {io.state->read_length, Py_None};
        if ((!ku_policy_is_wanted(io.record) || rest(&io) == 0)
            && read_arguments(given, count, names, arguments) == 0) {
            Py_ssize_t found = arguments[1] != Py_None ? 2 : 1;
            result = unless_callbacks_raised(
                &io, ku_read(arguments, found, RECORD, fill, &io));
        }
        if (release_held(&io) < 0 || (result != NULL && rest(&io) < 0)) {
            Py_CLEAR(result);
        }
        result = finish(&io, result);
    }
    Py_XDECREF(io.inner);
    return result;
}

/* --- writing ------------------------------------------------------------------- */

static struct ku_outcome
may_write(struct io *io, size_t n, size_t *room)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    struct ku_record *record = io->record;
    struct ku_outcome outcome = ku_record_occupy(record);
    if (outcome.refusal == KU_OK) {
        *room = n;
        if (!object_of(io)->closing) {
            outcome = ku_policy_before_write(libssl, io->ssl, record, n, room);
        }
        ku_record_vacate(record);
    }
    return outcome;
}

/* A refusal of the policy's, or of the call itself? */
static int
is_of_policy(const struct ku_outcome *outcome)
{
    return outcome->refusal != KU_BUSY && outcome->refusal != KU_IN_CALLBACK
           && outcome->refusal != KU_FORKED;
}

/* How many of n bytes may go now; -1 with an exception where none may. */
static int
admit(struct io *io, size_t n, size_t *room)
{
    struct ku_outcome outcome;
    KU_HOLD(io->inner);
    outcome = may_write(io, n, room);
    KU_RELEASE();
    if (outcome.refusal == KU_OK) {
        return 0;
    }
    if (!is_of_policy(&outcome)) {
        ku_raise(io->state, &outcome, io->function, io->self);
        return -1;
    }
    *room = n;
    if (ku_managed_ask(io->state, io->self, io->function, &outcome, io->record,
                       &io->news) < 0) {
        return -1;
    }
    ku_policy_excuse(io->record);
    return 0;
}

struct writing {
    const char *data;
    size_t n;
};

/* A renegotiation under way (TLS 1.2 and below) goes on by reading alone, or the
   peer's data breaks it.  0 with the outcome where it is not through. */
static int
end_renegotiation(struct io *io, struct ku_outcome *outcome)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    if (!is_renegotiating(io)) {
        return 1;
    }
    ku_clear_errors(libssl);
    int got = ku_record_peek(libssl, io->ssl);
    if (libssl->SSL_is_init_finished(io->ssl)) {
        libssl->ERR_clear_error();
        return 1;
    }
    *outcome = ku_failed_io(libssl, io->ssl);
    if (got > 0) {
        outcome->value = SSL_ERROR_WANT_READ;  /* data is in front: read() it */
    }
    return 0;
}

static int
encrypt_some(struct io *io, void *argument, struct ku_outcome *outcome)
{
    const struct ku_libssl *libssl = &io->state->libssl;
    const struct writing *writing = argument;
    size_t written = 0;
    if (!end_renegotiation(io, outcome) || !encrypt_held(io, NULL, outcome)) {
        return 0;
    }
    ku_clear_errors(libssl);
    if (libssl->SSL_write_ex(io->ssl, writing->data, writing->n, &written) == 1) {
        ku_record_sent(io->record, written);
        return 1;
    }
    *outcome = ku_failed_io(libssl, io->ssl);
    if (outcome->value == SSL_ERROR_SSL && libssl->SSL_want(io->ssl) == SSL_READING
        && !ku_has_failed(libssl, io->ssl)) {
        outcome->value = SSL_ERROR_WANT_READ;  /* the error is an older one */
    }
    return 0;
}

static int
write_part(struct io *io, struct writing *writing, int has_little_to_do)
{
    struct ku_outcome outcome = {.refusal = KU_OK};
    int done = try_in_openssl(io, encrypt_some, writing, has_little_to_do, &outcome);
    if (done == 0 && outcome.value == SSL_ERROR_WANT_READ && is_of_asyncio(io)
        && is_renegotiating(io)) {
        done = hold(io, writing->data, writing->n);
    }
    return done > 0 ? 0 : done < 0 ? -1 : raise_outcome(io, &outcome);
}

/* In parts, each under other keys.  Memory takes all of each. */
static int
write_all(struct io *io, const char *data, size_t n)
{
    size_t room;
    int has_little_to_do = n <= LITTLE;  /* all parts together */
    do {
        if (admit(io, n, &room) < 0) {
            return -1;
        }
        struct writing writing = {data, room};
        if (write_part(io, &writing, has_little_to_do) < 0) {
            return -1;
        }
        data += room;
        n -= room;
    } while (n > 0);
    return 0;
}

static PyObject *
write_data(struct io *io, PyObject *data)
{
    Py_buffer view;
    if (PyBytes_CheckExact(data)) {  /* what it mostly is */
        Py_ssize_t length = PyBytes_Size(data);
        int result = write_all(io, PyBytes_AsString(data), (size_t)length);
        return result == 0 ? PyLong_FromSsize_t(length) : NULL;
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    Py_ssize_t length = view.len;
    int result = write_all(io, view.buf, (size_t)length);
    PyBuffer_Release(&view);
    return result == 0 ? PyLong_FromSsize_t(length) : NULL;
}

static PyObject *
managed_write(PyObject *self, PyTypeObject *defining, PyObject *const *given,
              Py_ssize_t count, PyObject *names)
{
    struct io io;
    PyObject *result = NULL;
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    if (count + named != 1
        || (named == 1
            && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "data"))) {
        PyErr_SetString(PyExc_TypeError, "write() takes data");
        return NULL;
    }
    if (begin(&io, defining, self, "write") == 0) {
        result = unless_callbacks_raised(&io, write_data(&io, given[0]));
        result = finish(&io, result);
    }
    Py_XDECREF(io.inner);
    return result;
}

/* --- handshakes and shutdowns -------------------------------------------------- */

static int
occupy(struct io *io)
{
    struct ku_outcome outcome;
    KU_HOLD(io->inner);
    outcome = ku_record_occupy(io->record);
    KU_RELEASE();
    if (outcome.refusal != KU_OK) {
        ku_raise(io->state, &outcome, io->function, io->self);
        return -1;
    }
    return 0;
}

static void
vacate(struct io *io)
{
    KU_HOLD(io->inner);
    ku_record_vacate(io->record);
    KU_RELEASE();
}

/* What ssl.SSLObject has its _SSLSocket do by itself.  A cut looks like the peer's
   close_notify. */
static PyObject *
call_inner(struct io *io, const char *method)
{
    if (occupy(io) < 0) {
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(io->inner, method, NULL);
    vacate(io);
    if (io->record->why_cut != NULL
        && (result != NULL || PyErr_ExceptionMatches(PyExc_OSError))) {
        PyErr_Clear();
        Py_CLEAR(result);
        raise_cut(io);
    }
    return result;
}

static PyObject *
shut_down(struct io *io)
{
    struct ku_outcome outcome = {.refusal = KU_OK};
    if (is_of_asyncio(io)) {
        object_of(io)->closing = 1;
        if (take_backlog(io) < 0) {
            return NULL;
        }
        int done = try_in_openssl(io, end_before_shutdown, NULL, 0, &outcome);
        if (done == 0) {
            raise_outcome(io, &outcome);
        }
        if (done <= 0) {
            return NULL;
        }
    }
    return call_inner(io, "shutdown");
}

static PyObject *
do_handshake(struct io *io)
{
    return call_inner(io, "do_handshake");
}

static PyObject *
without_arguments(PyObject *self, PyTypeObject *defining, Py_ssize_t count,
                  PyObject *names, const char *function,
                  PyObject *(*call)(struct io *io))
{
    struct io io;
    PyObject *result = NULL;
    if (count != 0 || names != NULL) {
        return PyErr_Format(PyExc_TypeError, "%s() takes no arguments", function);
    }
    if (begin(&io, defining, self, function) == 0) {
        result = finish(&io, call(&io));
    }
    Py_XDECREF(io.inner);
    return result;
}

static PyObject *
managed_do_handshake(PyObject *self, PyTypeObject *defining, PyObject *const *given,
                     Py_ssize_t count, PyObject *names)
{
    (void)given;
    return without_arguments(self, defining, count, names, "do_handshake",
                             do_handshake);
}

static PyObject *
managed_unwrap(PyObject *self, PyTypeObject *defining, PyObject *const *given,
               Py_ssize_t count, PyObject *names)
{
    (void)given;
    return without_arguments(self, defining, count, names, "unwrap", shut_down);
}

#define WITH_CLASS(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"read", WITH_CLASS(managed_read), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "read($self, len=1024, buffer=None)\n--\n\nAs ssl.SSLObject.read()."},
    {"write", WITH_CLASS(managed_write), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "write($self, data)\n--\n\nAs ssl.SSLObject.write()."},
    {"do_handshake", WITH_CLASS(managed_do_handshake),
     METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "do_handshake($self)\n--\n\nAs ssl.SSLObject.do_handshake()."},
    {"unwrap", WITH_CLASS(managed_unwrap), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "unwrap($self)\n--\n\nAs ssl.SSLObject.unwrap()."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef members[] = {
    {"_sslobj", T_OBJECT_EX, offsetof(ManagedObject, inner), 0,
     "The _ssl._SSLSocket, which ssl's own methods use."},
    {"_rules", T_OBJECT_EX, offsetof(ManagedObject, rules), 0,
     "The Rules that it was made with."},
    {"_transport", T_OBJECT, offsetof(ManagedObject, transport), 0,
     "A weak reference to asyncio's transport, if it is of one."},
    {NULL, 0, 0, 0, NULL},
};

static int
object_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((ManagedObject *)object)->inner);
    Py_VISIT(((ManagedObject *)object)->rules);
    Py_VISIT(((ManagedObject *)object)->transport);
    return 0;
}

static int
object_clear(PyObject *object)
{
    Py_CLEAR(((ManagedObject *)object)->inner);
    Py_CLEAR(((ManagedObject *)object)->rules);
    Py_CLEAR(((ManagedObject *)object)->transport);
    return 0;
}

static void
object_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    (void)object_clear(object);
    free(((ManagedObject *)object)->held.memory);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyType_Slot slots[] = {
    {Py_tp_doc, "The reading and writing of a managed SSLObject."},
    {Py_tp_methods, methods},
    {Py_tp_members, members},
    {Py_tp_traverse, object_traverse},
    {Py_tp_clear, object_clear},
    {Py_tp_dealloc, object_dealloc},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pykeyupdate._keyupdate.ManagedObject",
    .basicsize = sizeof(ManagedObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyObject *
ku_object_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
