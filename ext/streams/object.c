/* pykeyupdate._keyupdate.ManagedObject: reading and writing of a managed SSLObject.

   read() and write() do what ssl.SSLObject's do, and before and after that what
   RekeyPolicy and PeerLimits require.  They call OpenSSL directly: to go through the
   methods of the _SSLSocket inside would cost more than all those checks. */
#include "streams/object.h"

#include "keys/counted_io.h"
#include "keys/notes.h"
#include "keys/peer_limits.h"
#include "keys/policy.h"
#include "openssl/errors.h"
#include "openssl/object_lock.h"
#include "openssl/questions.h"
#include "openssl/sslobject.h"
#include "streams/asyncio_help.h"
#include "streams/object_io.h"
#include "streams/reading.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

/* Keep the GIL if OpenSSL has only a little to do: to release it and take it again
   costs a tenth of the time of a small write. */
#define LITTLE_DATA 4096

/* Returns 0, or -1 with an exception if another call is under way. */
static int
occupy_object(struct ku_io *io)
{
    struct ku_outcome outcome;
    KU_LOCK_OBJECT(io->inner);
    outcome = ku_ledger_occupy(io->tls.ledger);
    KU_UNLOCK_OBJECT();
    if (outcome.refusal != KU_OK) {
        ku_raise(io->state, &outcome, io->function, io->self);
        return -1;
    }
    return 0;
}

static void
vacate_object(struct ku_io *io)
{
    KU_LOCK_OBJECT(io->inner);
    ku_ledger_vacate(io->tls.ledger);
    KU_UNLOCK_OBJECT();
}

/* --- reading ---------------------------------------------------------------------- */

struct reading {
    char *memory;
    size_t room, got;
};

static int
object_decrypt(struct ku_io *io, void *argument, struct ku_outcome *outcome)
{
    struct reading *reading = argument;
    *outcome = ku_counted_read(&io->tls, reading->memory, reading->room, &reading->got);
    return outcome->refusal == KU_OK || ku_is_end_of_data(&io->tls, outcome);
}

static int
raise_read(struct ku_io *io, const struct ku_outcome *outcome)
{
    struct ku_outcome wants = {.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    if (io->tls.ledger->why_cut == NULL) {
        return ku_io_raise(io, outcome);
    }
    int waits = ku_asyncio_waits_with_cut(io);
    if (waits > 0) {
        ku_raise(io->state, &wants, io->function, io->self);
    }
    return waits == 0 ? ku_io_raise(io, outcome) : -1;
}

static int
fill_from_object(void *argument, char *memory, size_t room, size_t *got)
{
    struct ku_io *io = argument;
    const struct ku_libssl *libssl = io->tls.libssl;
    struct reading reading = {memory, room, 0};
    struct ku_outcome outcome = {.refusal = KU_OK};
    BIO *bio = libssl->SSL_get_rbio(io->tls.ssl);
    long waiting = libssl->BIO_ctrl(bio, BIO_CTRL_PENDING, 0, NULL);
    int done =
        ku_io_try(io, object_decrypt, &reading, waiting <= LITTLE_DATA, &outcome);
    *got = reading.got;
    return done > 0 ? 0 : done < 0 ? -1 : raise_read(io, &outcome);
}

/* The arguments of read(len=1024, buffer=None), by position or keyword.  Returns 0, or
   -1 with an exception. */
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
    struct ku_io io;
    PyObject *result = NULL;
    if (ku_io_begin(&io, defining, self, "read") == 0) {
        PyObject *arguments[2] = {io.state->read_length, Py_None};
        if ((!ku_policy_keys_are_wanted(io.tls.ledger) || ku_io_renew(&io) == 0)
            && read_arguments(given, count, names, arguments) == 0) {
            Py_ssize_t found = arguments[1] != Py_None ? 2 : 1;
            result = ku_io_unless_callbacks_raised(
                &io,
                ku_read(arguments, found, TLS_MAX_PLAINTEXT, fill_from_object, &io));
        }
        if (ku_asyncio_release_held(&io) < 0
            || (result != NULL && ku_io_renew(&io) < 0)) {
            Py_CLEAR(result);
        }
        result = ku_io_finish(&io, result);
    }
    Py_XDECREF(io.inner);
    return result;
}

/* --- writing ---------------------------------------------------------------------- */

static struct ku_outcome
admit_write(struct ku_io *io, size_t n, size_t *room)
{
    struct ku_ledger *ledger = io->tls.ledger;
    struct ku_outcome outcome = ku_ledger_occupy(ledger);
    if (outcome.refusal == KU_OK) {
        *room = n;
        if (!ku_io_object(io)->closing) {
            outcome = ku_policy_admit_write(&io->tls, n, room);
        }
        ku_ledger_vacate(ledger);
    }
    return outcome;
}

/* Did the policy refuse, or the call itself? */
static int
is_of_policy(const struct ku_outcome *outcome)
{
    return outcome->refusal != KU_BUSY && outcome->refusal != KU_IN_CALLBACK
           && outcome->refusal != KU_FORKED;
}

/* Set `room` to how many of n bytes may be written now.  Returns 0, or -1 with an
   exception if none may. */
static int
object_admit(struct ku_io *io, size_t n, size_t *room)
{
    struct ku_outcome outcome;
    KU_LOCK_OBJECT(io->inner);
    outcome = admit_write(io, n, room);
    KU_UNLOCK_OBJECT();
    if (outcome.refusal == KU_OK) {
        return 0;
    }
    if (!is_of_policy(&outcome)) {
        ku_raise(io->state, &outcome, io->function, io->self);
        return -1;
    }
    *room = n;
    if (ku_ask_on_impossible(io->state, io->self, io->function, &outcome,
                             io->tls.ledger, &io->report)
        < 0) {
        return -1;
    }
    ku_policy_permit_overuse(io->tls.ledger);
    return 0;
}

struct writing {
    const char *data;
    size_t n;
};

/* Only reading may drive a renegotiation under way (TLS 1.2 and below); otherwise the
   peer's data breaks it.  Returns 1 if none is under way any more, or 0 with the
   outcome. */
static int
end_renegotiation(struct ku_io *io, struct ku_outcome *outcome)
{
    if (!ku_io_is_renegotiating(io)) {
        return 1;
    }
    *outcome = ku_counted_peek(&io->tls);
    if (outcome->refusal == KU_OK) { /* data comes first: read() it */
        *outcome = (struct ku_outcome){.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    }
    return io->tls.libssl->SSL_is_init_finished(io->tls.ssl);
}

static int
object_encrypt(struct ku_io *io, void *argument, struct ku_outcome *outcome)
{
    const struct writing *writing = argument;
    size_t written;
    if (!end_renegotiation(io, outcome)
        || !ku_asyncio_encrypt_held(io, NULL, outcome)) {
        return 0;
    }
    *outcome = ku_counted_write(&io->tls, writing->data, writing->n, &written);
    if (outcome->value == SSL_ERROR_SSL
        && io->tls.libssl->SSL_want(io->tls.ssl) == SSL_READING
        && !ku_has_failed(&io->tls)) {
        outcome->value = SSL_ERROR_WANT_READ; /* that error is an older one */
    }
    return outcome->refusal == KU_OK;
}

/* Another thread may be encrypting what is held.  Returns 1, 0 if it is too much to hold,
   or -1 with an exception. */
static int
hold_data(struct ku_io *io, const struct writing *writing)
{
    if (occupy_object(io) < 0) {
        return -1;
    }
    int done = ku_asyncio_hold(io, writing->data, writing->n);
    vacate_object(io);
    return done;
}

static int
write_part(struct ku_io *io, struct writing *writing, int has_little_to_do)
{
    struct ku_outcome outcome = {.refusal = KU_OK};
    int done = ku_io_try(io, object_encrypt, writing, has_little_to_do, &outcome);
    if (done == 0 && outcome.value == SSL_ERROR_WANT_READ && ku_io_is_of_asyncio(io)
        && ku_io_is_renegotiating(io)) {
        done = hold_data(io, writing);
    }
    return done > 0 ? 0 : done < 0 ? -1 : ku_io_raise(io, &outcome);
}

/* Write in parts, each under other keys.  The memory BIO takes all of each part. */
static int
write_all(struct ku_io *io, const char *data, size_t n)
{
    size_t room;
    int has_little_to_do = n <= LITTLE_DATA; /* of all parts together */
    do {
        if (object_admit(io, n, &room) < 0) {
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
write_data(struct ku_io *io, PyObject *data)
{
    Py_buffer view;
    if (PyBytes_CheckExact(data)) { /* the usual case */
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
    struct ku_io io;
    PyObject *result = NULL;
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    if (count + named != 1
        || (named == 1
            && PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "data"))) {
        PyErr_SetString(PyExc_TypeError, "write() takes data");
        return NULL;
    }
    if (ku_io_begin(&io, defining, self, "write") == 0) {
        result = ku_io_unless_callbacks_raised(&io, write_data(&io, given[0]));
        result = ku_io_finish(&io, result);
    }
    Py_XDECREF(io.inner);
    return result;
}

/* --- keys of a connection that nobody uses ---------------------------------------- */

struct rotation {
    int stuck;
    ku_time wait;
};

static int
object_rotate(struct ku_io *io, void *argument, struct ku_outcome *outcome)
{
    struct rotation *rotation = argument;
    if (ku_io_object(io)->closing) {
        return 1;
    }
    *outcome = ku_policy_rotate(&io->tls, rotation->stuck, &rotation->wait);
    if (outcome->refusal == KU_OK && outcome->value) {
        (void)ku_do_handshake(&io->tls); /* a failure shows in the next call */
    }
    return outcome->refusal == KU_OK;
}

/* Returns 0, or -1 with an exception. */
static int
rotate_or_ask(struct ku_io *io, struct rotation *rotation)
{
    struct ku_outcome outcome = {.refusal = KU_OK};
    int done = ku_io_try(io, object_rotate, rotation, 1, &outcome);
    if (done != 0) {
        return done > 0 ? 0 : -1;
    }
    if (!is_of_policy(&outcome)) {
        ku_raise(io->state, &outcome, io->function, io->self);
        return -1;
    }
    if (ku_ask_on_impossible(io->state, io->self, "write", &outcome, io->tls.ledger,
                             &io->report)
        < 0) {
        return -1;
    }
    ku_policy_permit_overuse(io->tls.ledger);
    return 0;
}

static PyObject *
managed_rotate(PyObject *self, PyTypeObject *defining, PyObject *const *given,
               Py_ssize_t count, PyObject *names)
{
    struct ku_io io;
    PyObject *result = NULL;
    int stuck = count == 1 && names == NULL ? PyObject_IsTrue(given[0]) : -1;
    if (stuck < 0) {
        PyErr_SetString(PyExc_TypeError, "_rotate() takes a flag");
        return NULL;
    }
    if (ku_io_begin(&io, defining, self, "keep_fresh") == 0) {
        struct rotation rotation = {.stuck = stuck, .wait = KU_NEVER};
        result = rotate_or_ask(&io, &rotation) == 0 ? PyLong_FromLongLong(rotation.wait)
                                                    : NULL;
        result = ku_io_finish(&io, result);
    }
    Py_XDECREF(io.inner);
    return result;
}

/* --- handshakes and shutdowns ----------------------------------------------------- */

/* Call the method of the _SSLSocket that ssl.SSLObject would call.  A cut-off looks to
   it like the peer's close_notify, so raise the cut-off instead. */
static PyObject *
call_inner(struct ku_io *io, const char *method)
{
    if (occupy_object(io) < 0) {
        return NULL;
    }
    ku_limit_renegotiation_time(&io->tls);
    PyObject *result = PyObject_CallMethod(io->inner, method, NULL);
    vacate_object(io);
    if (io->tls.ledger->why_cut != NULL
        && (result != NULL || PyErr_ExceptionMatches(PyExc_OSError))) {
        PyErr_Clear();
        Py_CLEAR(result);
        ku_io_raise_cut(io);
    }
    return result;
}

static PyObject *
shut_down(struct ku_io *io)
{
    struct ku_outcome outcome = {.refusal = KU_OK};
    if (ku_io_is_of_asyncio(io)) {
        ku_io_object(io)->closing = 1;
        if (ku_asyncio_take_backlog(io) < 0) {
            return NULL;
        }
        int done = ku_io_try(io, ku_asyncio_end_renegotiation, NULL, 0, &outcome);
        if (done == 0) {
            ku_io_raise(io, &outcome);
        }
        if (done <= 0) {
            return NULL;
        }
    }
    return call_inner(io, "shutdown");
}

static PyObject *
do_handshake(struct ku_io *io)
{
    return call_inner(io, "do_handshake");
}

static PyObject *
without_arguments(PyObject *self, PyTypeObject *defining, Py_ssize_t count,
                  PyObject *names, const char *function,
                  PyObject *(*call)(struct ku_io *io))
{
    struct ku_io io;
    PyObject *result = NULL;
    if (count != 0 || names != NULL) {
        return PyErr_Format(PyExc_TypeError, "%s() takes no arguments", function);
    }
    if (ku_io_begin(&io, defining, self, function) == 0) {
        result = ku_io_finish(&io, call(&io));
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
    {"_rotate", WITH_CLASS(managed_rotate), METH_METHOD | METH_FASTCALL | METH_KEYWORDS,
     "_rotate($self, stuck, /)\n--\n\nAs Duplex.rotate()."},
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
    {"_peer", T_OBJECT, offsetof(ManagedObject, peer), 0,
     "The peer's address, if it is known."},
    {"_label", T_OBJECT, offsetof(ManagedObject, label), 0,
     "The program's name for the connection."},
    {NULL, 0, 0, 0, NULL},
};

static int
object_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((ManagedObject *)object)->inner);
    Py_VISIT(((ManagedObject *)object)->rules);
    Py_VISIT(((ManagedObject *)object)->transport);
    Py_VISIT(((ManagedObject *)object)->peer);
    Py_VISIT(((ManagedObject *)object)->label);
    return 0;
}

static int
object_clear(PyObject *object)
{
    Py_CLEAR(((ManagedObject *)object)->inner);
    Py_CLEAR(((ManagedObject *)object)->rules);
    Py_CLEAR(((ManagedObject *)object)->transport);
    Py_CLEAR(((ManagedObject *)object)->peer);
    Py_CLEAR(((ManagedObject *)object)->label);
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
