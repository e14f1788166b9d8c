/* pykeyupdate._keyupdate.Duplex: what a managed socket has for the _SSLSocket.

   The ssl module's Python code does all its work through `self._sslobj`, an
   _ssl._SSLSocket.  A Duplex stands in its place and behaves as one: read(),
   write() and pending() are the pump's (pump.c), every other attribute is the
   _SSLSocket's own, used by one thread at a time.

   The order of locks: whoever waits for the monitor does not hold the GIL; whoever
   is in the monitor may wait for the GIL. */
#include "duplex.h"

#include "call.h"
#include "reading.h"
#include "sslobject.h"
#include "step.h"

#include <string.h>

/* Constants of OpenSSL's public headers, and so of ssl. */
#define SSL_ERROR_ZERO_RETURN 6

#define MOST_READ (256 * 1024)  /* allocated for one call, whatever it asks for */

/* --- read, write, pending ------------------------------------------------------ */

struct reading {
    char *data;
    size_t room, got;
};

/* A close_notify is the end of the data, unless we have sent ours: as in _ssl. */
static enum ku_progress
read_action(struct ku_call *call, void *argument)
{
    struct reading *reading = argument;
    enum ku_progress progress =
        ku_pump_read(call, reading->data, reading->room, &reading->got);
    if (progress == KU_ENDED && call->outcome.value == SSL_ERROR_ZERO_RETURN
        && call->libssl->SSL_get_shutdown(call->ssl) == SSL_RECEIVED_SHUTDOWN) {
        return KU_DONE;
    }
    return progress;
}

static int
fill(void *self, char *memory, size_t room, size_t *got)
{
    struct reading reading = {memory, room, 0};
    PyObject *done = ku_call_perform(self, "read", NULL, read_action, &reading);
    *got = reading.got;
    return done != NULL ? 0 : -1;
}

static PyObject *
py_read(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return ku_read(arguments, count, MOST_READ, fill, self);
}

static enum ku_progress
write_action(struct ku_call *call, void *argument)
{
    Py_buffer *view = argument;
    return ku_pump_write(call, view->buf, (size_t)view->len);
}

static PyObject *
py_write(PyObject *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *done =
        ku_call_perform((Duplex *)self, "write", NULL, write_action, &view);
    Py_ssize_t length = view.len;
    PyBuffer_Release(&view);
    return done != NULL ? PyLong_FromSsize_t(length) : NULL;
}

static enum ku_progress
pending_action(struct ku_call *call, void *argument)
{
    *(size_t *)argument = ku_pump_pending(call);
    return KU_DONE;
}

/* In a callback it only looks. */
static PyObject *
py_pending(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    size_t pending = 0;
    if (ku_monitor_is_mine(&((Duplex *)self)->pump.monitor)) {
        return PyObject_CallMethod(((Duplex *)self)->inner, "pending", NULL);
    }
    if (ku_call_perform((Duplex *)self, "pending", NULL, pending_action, &pending)
        == NULL) {
        return NULL;
    }
    return PyLong_FromSize_t(pending);
}

/* --- handshakes, shutdowns, and what renegotiations are made of ------------------- */

static enum ku_progress
send_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_send(call);
}

static enum ku_progress
handshake_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_handshake(call);
}

static PyObject *
py_handshake(PyObject *self, PyObject *timeout)
{
    PyObject *done =
        ku_call_perform((Duplex *)self, "handshake", timeout, handshake_action, NULL);
    Py_XINCREF(done);
    return done;
}

static enum ku_progress
shutdown_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_shutdown(call);
}

static PyObject *
py_shutdown(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    PyObject *done =
        ku_call_perform((Duplex *)self, "read", NULL, shutdown_action, NULL);
    return done != NULL ? ku_owner_of((Duplex *)self) : NULL;
}

static PyObject *
py_send(PyObject *self, PyObject *args)
{
    const char *what;
    PyObject *timeout;
    if (!PyArg_ParseTuple(args, "sO", &what, &timeout)) {
        return NULL;
    }
    PyObject *done = ku_call_perform((Duplex *)self, what, timeout, send_action, NULL);
    Py_XINCREF(done);
    return done;
}

static enum ku_progress
receive_action(struct ku_call *call, void *argument)
{
    return ku_pump_receive(call, *(unsigned long *)argument, 1);
}

static PyObject *
py_receive(PyObject *self, PyObject *args)
{
    const char *what;
    PyObject *timeout;
    unsigned long received;
    if (!PyArg_ParseTuple(args, "sOk", &what, &timeout, &received)) {
        return NULL;
    }
    PyObject *done =
        ku_call_perform((Duplex *)self, what, timeout, receive_action, &received);
    Py_XINCREF(done);
    return done;
}

static enum ku_progress
settle_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    enum ku_progress progress = ku_pump_settle(call);
    ku_pump_flush(call);
    return progress;
}

static PyObject *
py_settle(PyObject *self, PyObject *args)
{
    const char *what;
    if (!PyArg_ParseTuple(args, "s", &what)) {
        return NULL;
    }
    PyObject *done = ku_call_perform((Duplex *)self, what, NULL, settle_action, NULL);
    Py_XINCREF(done);
    return done;
}

static enum ku_progress
renew_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_renew(call);
}

static PyObject *
py_renew(PyObject *self, PyObject *args)
{
    const char *what;
    if (!PyArg_ParseTuple(args, "s", &what)) {
        return NULL;
    }
    PyObject *done = ku_call_perform((Duplex *)self, what, NULL, renew_action, NULL);
    Py_XINCREF(done);
    return done;
}

/* After a close_notify OpenSSL reads no more. */
static PyObject *
py_left_over(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    Duplex *duplex = (Duplex *)self;
    ku_state *state = ku_state_of(duplex);
    if (ku_duplex_enter(state, self) < 0) {
        return NULL;
    }
    SSL *ssl = ku_sslobject_ssl(state, duplex->inner);
    struct ku_buffer *input = &ku_tlsbio_of(&state->libssl, ssl)->input;
    PyObject *bytes = PyBytes_FromStringAndSize(
        input->memory + input->start, (Py_ssize_t)ku_buffer_length(input));
    if (bytes != NULL && !input->lent) {
        ku_buffer_drop(input, ku_buffer_length(input));
    }
    ku_duplex_leave(self);
    return bytes;
}

static PyObject *
py_received(PyObject *self, void *ignored)
{
    (void)ignored;
    if (ku_duplex_enter(ku_state_of((Duplex *)self), self) < 0) {
        return NULL;
    }
    unsigned long received = ((Duplex *)self)->pump.received;
    ku_monitor_leave(&((Duplex *)self)->pump.monitor);
    return PyLong_FromUnsignedLong(received);
}

static PyObject *
py_inner(PyObject *self, void *ignored)
{
    (void)ignored;
    PyObject *inner = ku_duplex_inner(self);
    inner = inner != NULL ? inner : Py_None;
    Py_INCREF(inner);
    return inner;
}

static enum ku_progress
close_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    ku_pump_close(call);
    return KU_DONE;
}

/* A client that goes without having read the server's session tickets breaks the
   connection for the server, which may still be reading: TLS 1.3 clients take them
   with them.  Not where the process has forked: the data may be another's. */
static int
drains(Duplex *self, struct ku_call *call)
{
    const struct ku_libssl *libssl = call->libssl;
    return self->forks_of_parent == ku_forks_of_parent
           && !libssl->SSL_is_server(call->ssl)
           && libssl->SSL_version(call->ssl) == TLS1_3_VERSION;
}

/* Of the parent's threads none is in the connection here, and the parent's end of
   it is not to be disturbed. */
static PyObject *
py_close(PyObject *object, PyObject *descriptor)
{
    Duplex *self = (Duplex *)object;
    ku_state *state = ku_state_of(self);
    long long number = PyLong_AsLongLong(descriptor);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (number == -1) {
        Py_RETURN_NONE;  /* another thread has it */
    }
    if (self->forks != ku_forks || self->pump.broken_by_fork || self->inner == NULL) {
        Py_BEGIN_ALLOW_THREADS
        ku_wire_close((ku_socket)number);
        Py_END_ALLOW_THREADS
        Py_RETURN_NONE;
    }
    struct ku_call call = {.pump = &self->pump, .libssl = &state->libssl};
    call.socket = (ku_socket)number;
    call.ssl = ku_sslobject_ssl(state, self->inner);
    call.drains = drains(self, &call);
    enum ku_progress progress;
    if (ku_call_run(self, &call, close_action, NULL, &progress) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- all else, one thread at a time ------------------------------------------- */

int
ku_duplex_enter(ku_state *state, PyObject *object)
{
    Duplex *self = (Duplex *)object;
    if (ku_call_check(state, self, "ssl") < 0) {
        return -1;
    }
    ku_enter_with_gil(&self->pump.monitor);
    return 0;
}

/* What was done may be what another thread waits for. */
void
ku_duplex_leave(PyObject *object)
{
    struct ku_pump *pump = &((Duplex *)object)->pump;
    ku_monitor_announce(&pump->monitor);
    ku_monitor_leave(&pump->monitor);
}

void
ku_duplex_settle(ku_state *state, PyObject *object)
{
    Duplex *self = (Duplex *)object;
    struct ku_call call = {.pump = &self->pump, .libssl = &state->libssl};
    if (self->pump.in_openssl > 0) {
        return;  /* in a callback of OpenSSL's nothing may be read */
    }
    call.socket = KU_NO_SOCKET;
    call.ssl = ku_sslobject_ssl(state, self->inner);
    call.bio = ku_tlsbio_of(call.libssl, call.ssl);
    (void)ku_pump_settle(&call);
}

void
ku_duplex_in_openssl(PyObject *object, int change)
{
    ((Duplex *)object)->pump.in_openssl += change;
}

PyObject *
ku_duplex_inner(PyObject *duplex)
{
    return ((Duplex *)duplex)->inner;
}

static PyObject *
py_enter(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    if (ku_duplex_enter(ku_state_of((Duplex *)self), self) < 0) {
        return NULL;
    }
    Py_INCREF(self);
    return self;
}

static PyObject *
py_exit(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    if (!ku_monitor_is_mine(&((Duplex *)self)->pump.monitor)) {
        PyErr_SetString(PyExc_RuntimeError, "this thread has not entered it");
        return NULL;
    }
    ku_duplex_leave(self);
    Py_RETURN_NONE;
}

/* call(function, /, *args, **kwargs) */
static PyObject *
py_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_Size(args) < 1) {
        PyErr_SetString(PyExc_TypeError, "call() takes a function");
        return NULL;
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_Size(args));
    if (rest == NULL || ku_duplex_enter(ku_state_of((Duplex *)self), self) < 0) {
        Py_XDECREF(rest);
        return NULL;
    }
    ku_duplex_in_openssl(self, 1);
    PyObject *result = PyObject_Call(PyTuple_GetItem(args, 0), rest, kwargs);
    ku_duplex_in_openssl(self, -1);
    ku_duplex_leave(self);
    Py_DECREF(rest);
    return result;
}

/* Methods of the _SSLSocket come as functools.partial(self.call, method). */
static PyObject *
locked(ku_state *state, PyObject *self, PyObject *method)
{
    PyObject *call = PyObject_GetAttrString(self, "call");
    PyObject *result =
        call != NULL ? PyObject_CallFunctionObjArgs(state->partial, call, method, NULL)
                     : NULL;
    Py_XDECREF(call);
    Py_DECREF(method);
    return result;
}

static PyObject *
get_attribute(PyObject *self, PyObject *name)
{
    PyObject *value = PyObject_GenericGetAttr(self, name);
    if (value != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return value;
    }
    PyErr_Clear();
    ku_state *state = ku_state_of((Duplex *)self);
    if (ku_duplex_enter(state, self) < 0) {
        return NULL;
    }
    value = PyObject_GetAttr(ku_duplex_inner(self), name);
    ku_duplex_leave(self);
    return value != NULL && PyCFunction_Check(value) ? locked(state, self, value)
                                                     : value;
}

static int
set_attribute(PyObject *self, PyObject *name, PyObject *value)
{
    if (ku_duplex_enter(ku_state_of((Duplex *)self), self) < 0) {
        return -1;
    }
    int result = PyObject_SetAttr(ku_duplex_inner(self), name, value);
    ku_duplex_leave(self);
    return result;
}

/* --- the type ------------------------------------------------------------------ */

/* Not of any connection: of one that has not begun, over memory BIOs, so that
   nothing can be on its way in the BIO that is replaced, and that is in no other
   Duplex. */
static SSL *
fresh_connection(ku_state *state, PyObject *inner)
{
    SSL *ssl = NULL;
    if (Py_TYPE(inner) == state->sslobject_type && ku_sslobject_is_bio(state, inner)) {
        ssl = ku_sslobject_ssl(state, inner);
    }
    if (ssl == NULL || strncmp(state->libssl.SSL_state_string(ssl), "PINIT", 5) != 0
        || ku_tlsbio_of(&state->libssl, ssl) != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "a Duplex is made of a new connection over memory BIOs");
        return NULL;
    }
    return ssl;
}

static PyObject *
duplex_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *inner, *owner;
    ku_state *state = PyType_GetModuleState(type);
    if (state == NULL || (kwargs != NULL && PyDict_Size(kwargs) != 0)
        || !PyArg_ParseTuple(args, "OO", &inner, &owner)) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "Duplex(inner, owner)");
        }
        return NULL;
    }
    SSL *ssl = fresh_connection(state, inner);
    Duplex *self = ssl != NULL ? (Duplex *)PyType_GenericAlloc(type, 0) : NULL;
    if (self == NULL) {
        return NULL;
    }
    Py_INCREF(inner);
    self->inner = inner;
    self->forks = ku_forks;
    self->forks_of_parent = ku_forks_of_parent;
    self->owner = PyWeakref_NewRef(owner, NULL);
    if (self->owner == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    if (ku_pump_create(&self->pump) < 0
        || ku_tlsbio_install(&state->libssl, state->bio_method, ssl) < 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->pump.record = ku_record_of(ssl);
    if (self->pump.record != NULL) {
        self->pump.record->is_shared = 1;
    }
    return (PyObject *)self;
}

static int
duplex_traverse(PyObject *object, visitproc visit, void *arg)
{
    Duplex *self = (Duplex *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->inner);
    Py_VISIT(self->owner);
    return 0;
}

static int
duplex_clear(PyObject *object)
{
    Duplex *self = (Duplex *)object;
    Py_CLEAR(self->inner);
    Py_CLEAR(self->owner);
    return 0;
}

/* What a thread of the parent had half done is not freed here. */
static void
duplex_dealloc(PyObject *object)
{
    Duplex *self = (Duplex *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->forks != ku_forks) {
        ku_pump_forked(&self->pump);
    }
    if (self->pump.broken_by_fork) {
        Py_XINCREF(self->inner);
    }
    ku_pump_destroy(&self->pump);
    (void)duplex_clear(object);
    PyObject_GC_Del(object);
    Py_DECREF(type);
}

static PyMethodDef methods[] = {
    {"read", (PyCFunction)(void (*)(void))py_read, METH_FASTCALL,
     "read($self, length, buffer=<unrepresentable>, /)\n--\n\n"
     "As _ssl._SSLSocket.read(), for any number of threads."},
    {"write", py_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "As _ssl._SSLSocket.write(), for any number of threads."},
    {"pending", py_pending, METH_NOARGS,
     "pending($self, /)\n--\n\nReturn how many bytes read() gives without waiting."},
    {"handshake", py_handshake, METH_O,
     "handshake($self, timeout, /)\n--\n\n"
     "As _ssl._SSLSocket.do_handshake(); timeout is in seconds, or None."},
    {"shutdown", py_shutdown, METH_NOARGS,
     "shutdown($self, /)\n--\n\nAs _ssl._SSLSocket.shutdown()."},
    {"send", py_send, METH_VARARGS,
     "send($self, function, timeout, /)\n--\n\nSend what OpenSSL has written."},
    {"receive", py_receive, METH_VARARGS,
     "receive($self, function, timeout, received, /)\n--\n\n"
     "Wait until something has been received since `received` was read."},
    {"settle", py_settle, METH_VARARGS,
     "settle($self, function, /)\n--\n\n"
     "Process what was received, and keep the data for read()."},
    {"renew", py_renew, METH_VARARGS,
     "renew($self, function, /)\n--\n\n"
     "Get new keys if they are due, without waiting."},
    {"left_over", py_left_over, METH_NOARGS,
     "left_over($self, /)\n--\n\nTake what was received behind the end of TLS."},
    {"close", py_close, METH_O,
     "close($self, descriptor, /)\n--\n\n"
     "Wake the threads that are in it; the last one closes the descriptor."},
    {"call", (PyCFunction)(void (*)(void))py_call, METH_VARARGS | METH_KEYWORDS,
     "call($self, function, /, *args, **kwargs)\n--\n\n"
     "Call a function while no other thread is in the connection."},
    {"__enter__", py_enter, METH_NOARGS,
     "__enter__($self, /)\n--\n\nKeep other threads out of the connection."},
    {"__exit__", py_exit, METH_VARARGS,
     "__exit__($self, /, *exc_info)\n--\n\nLet other threads in again."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"inner", py_inner, NULL, "The _ssl._SSLSocket.", NULL},
    {"received", py_received, NULL, "A number that grows when data comes in.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "Duplex(inner, owner, /)\n--\n\n"
                "An _ssl._SSLSocket that any number of threads may use."},
    {Py_tp_new, duplex_new},
    {Py_tp_dealloc, duplex_dealloc},
    {Py_tp_traverse, duplex_traverse},
    {Py_tp_clear, duplex_clear},
    {Py_tp_getattro, get_attribute},
    {Py_tp_setattro, set_attribute},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pykeyupdate._keyupdate.Duplex",
    .basicsize = sizeof(Duplex),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = slots,
};

PyObject *
ku_duplex_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
