/* pykeyupdate._keyupdate.Duplex: what a managed socket has in place of an _SSLSocket.

   The ssl module's Python code does all its work through `self._sslobj`, an
   _ssl._SSLSocket.  A Duplex takes that place and behaves the same: the pump (pump.c)
   does read(), write() and pending(); every other attribute is that of the _SSLSocket
   inside, which one thread at a time uses.

   The order of locks: a thread that waits for the monitor does not hold the GIL; a
   thread in the monitor may wait for the GIL. */
#include "streams/duplex.h"

#include "keys/counted_io.h"
#include "keys/opening.h"
#include "openssl/errors.h"
#include "openssl/sslobject.h"
#include "openssl/states.h"
#include "streams/callbacks.h"
#include "streams/duplex_call.h"
#include "streams/reading.h"
#include "streams/traffic.h"

#define MAX_READ (256 * 1024) /* bytes allocated for one call, whatever it asks for */

/* --- exceptions of the context's callbacks ---------------------------------------- */

/* Raise the exception of a _msg_callback or of the key log that _ssl stores.  Returns
   0, or -1 if an exception is set then: the call's own if it has one, with the
   callback's as its context. */
static int
raise_callback_exception(ku_state *state, Duplex *self, int of_data)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    int begun = ku_call_begin_look(state, self, "do_handshake");
    if (begun > 0) {
        (void)ku_raise_callback_exception(state, self->inner, of_data);
    }
    ku_call_end_look(self, begun);
    ku_restore_exception(type, value, traceback);
    return PyErr_Occurred() ? -1 : 0;
}

/* The same after a handshake, which may have switched to another context
   (sni_callback).  Ask outside the monitor whether that context has callbacks, so that
   a signal handler that runs meanwhile is not in a step. */
static int
raise_of_callbacks(ku_state *state, Duplex *self)
{
    int has = ku_has_callbacks(self->inner);
    return has > 0 ? raise_callback_exception(state, self, 0) : has;
}

/* End a read, a write or a shutdown as _ssl does: if a callback has raised, raise that,
   and data that was read is lost.  Steals `result` and returns it, or NULL. */
static PyObject *
unless_callbacks_raised(Duplex *self, PyObject *result, int reads)
{
    struct ku_ledger *ledger = self->pump.ledger;
    int of_data = reads && result != NULL;
    if (ledger != NULL && ledger->has_callbacks
        && raise_callback_exception(ku_state_of(self), self, of_data) < 0) {
        Py_CLEAR(result);
    }
    return result;
}

/* --- read, write, pending --------------------------------------------------------- */

struct reading {
    char *data;
    size_t room, got;
};

static enum ku_progress
read_action(struct ku_call *call, void *argument)
{
    struct reading *reading = argument;
    enum ku_progress progress =
        ku_pump_read(call, reading->data, reading->room, &reading->got);
    return progress == KU_ENDED && ku_is_end_of_data(&call->tls, &call->outcome)
               ? KU_DONE
               : progress;
}

static int
fill_from_pump(void *self, char *memory, size_t room, size_t *got)
{
    struct reading reading = {memory, room, 0};
    PyObject *done = ku_call_perform(self, "read", NULL, read_action, &reading);
    *got = reading.got;
    return done != NULL ? 0 : -1;
}

PyObject *
ku_duplex_read(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    return unless_callbacks_raised(
        (Duplex *)self, ku_read(arguments, count, MAX_READ, fill_from_pump, self), 1);
}

static enum ku_progress
write_action(struct ku_call *call, void *argument)
{
    Py_buffer *view = argument;
    return ku_pump_write(call, view->buf, (size_t)view->len);
}

PyObject *
ku_duplex_write(PyObject *self, PyObject *data)
{
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *done =
        ku_call_perform((Duplex *)self, "write", NULL, write_action, &view);
    Py_ssize_t length = view.len;
    PyBuffer_Release(&view);
    return unless_callbacks_raised((Duplex *)self,
                                   done != NULL ? PyLong_FromSsize_t(length) : NULL, 0);
}

static enum ku_progress
pending_action(struct ku_call *call, void *argument)
{
    *(size_t *)argument = ku_pump_pending(call);
    return KU_DONE;
}

/* In a callback, only look. */
static PyObject *
pending_now(Duplex *self)
{
    ku_state *state = ku_state_of(self);
    int begun = ku_call_begin_look(state, self, "pending");
    if (begun < 0) {
        return NULL;
    }
    struct ku_tls tls;
    size_t pending = ku_buffer_length(&self->pump.stash);
    if (ku_ledger_tls(state, self->inner, &tls)) {
        pending += (size_t)tls.libssl->SSL_pending(tls.ssl);
    }
    ku_call_end_look(self, begun);
    return PyLong_FromSize_t(pending);
}

static PyObject *
py_pending(PyObject *object, PyObject *ignored)
{
    (void)ignored;
    Duplex *self = (Duplex *)object;
    size_t pending = 0;
    if (ku_monitor_any_is_mine()) {
        return pending_now(self);
    }
    if (ku_call_perform_here(self, "pending", pending_action, &pending) == NULL) {
        return NULL;
    }
    return PyLong_FromSize_t(pending);
}

/* --- handshakes, shutdowns and parts of renegotiations ---------------------------- */

static enum ku_progress
send_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_traffic_send(call);
}

static enum ku_progress
handshake_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_handshake(call);
}

static PyObject *
py_do_handshake(PyObject *object, PyObject *ignored)
{
    (void)ignored;
    Duplex *self = (Duplex *)object;
    if (ku_call_perform(self, "handshake", NULL, handshake_action, NULL) == NULL
        || raise_of_callbacks(ku_state_of(self), self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ssl's own request for the client's certificate, passed on to the _SSLSocket. */
static PyObject *
py_verify_client(PyObject *object, PyObject *ignored)
{
    (void)ignored;
    Duplex *self = (Duplex *)object;
    const char *name = "verify_client_post_handshake";
    ku_state *state = ku_state_of(self);
    int begun = ku_call_refuse_reentry(state, self, name) == 0
                    ? ku_call_begin_look(state, self, name)
                    : -1;
    if (begun < 0) {
        return NULL;
    }
    PyObject *result = NULL;
    if (begun > 0) {
        result = PyObject_CallMethod(self->inner, name, NULL);
    }
    else {
        ku_raise_refusal(state, KU_ELSEWHERE, name, object);
    }
    ku_call_end_look(self, begun);
    return result;
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
    return unless_callbacks_raised(
        (Duplex *)self, done != NULL ? ku_owner_of((Duplex *)self) : NULL, 0);
}

static enum ku_progress
receive_action(struct ku_call *call, void *argument)
{
    return ku_pump_receive(call, *(unsigned long *)argument, 1);
}

static enum ku_progress
settle_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    enum ku_progress progress = ku_pump_settle(call);
    ku_traffic_flush(call);
    return progress;
}

static enum ku_progress
renew_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_renew(call);
}

static enum ku_progress
rotate_action(struct ku_call *call, void *argument)
{
    return ku_pump_rotate(call, argument);
}

static enum ku_progress
give_up_action(struct ku_call *call, void *ignored)
{
    (void)ignored;
    return ku_pump_give_up(call);
}

static PyObject *
py_rotate(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    ku_time wait = KU_NEVER;
    PyObject *done =
        ku_call_perform((Duplex *)self, "write", NULL, rotate_action, &wait);
    return done != NULL ? PyLong_FromLongLong(wait) : NULL;
}

/* Perform `action` with Python's arguments: the name of the call for errors; a timeout
   in seconds, or None for no limit (without this argument, the socket's own); and
   `received` as it was before. */
static PyObject *
perform_named(PyObject *self, PyObject *args, ku_action action)
{
    const char *what;
    PyObject *timeout = NULL;
    unsigned long received = 0;
    if (!PyArg_ParseTuple(args, "s|Ok", &what, &timeout, &received)) {
        return NULL;
    }
    PyObject *done = ku_call_perform((Duplex *)self, what, timeout, action, &received);
    Py_XINCREF(done);
    return done;
}

/* clang-format off */
#define KU_METHOD(name)                                        \
    static PyObject *py_##name(PyObject *self, PyObject *args) \
    {                                                          \
        return perform_named(self, args, name##_action);       \
    }
KU_METHOD(send)
KU_METHOD(receive)
KU_METHOD(settle)
KU_METHOD(renew)
KU_METHOD(give_up)
#undef KU_METHOD
/* clang-format on */

static PyObject *
py_received(PyObject *object, void *ignored)
{
    (void)ignored;
    Duplex *self = (Duplex *)object;
    int begun = ku_call_begin_look(ku_state_of(self), self, "received");
    if (begun < 0) {
        return NULL;
    }
    unsigned long received = self->pump.receptions;
    ku_call_end_look(self, begun);
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

/* A client that closes without having read the server's session tickets resets the
   connection for the server, which may still be reading.  So a TLS 1.3 client first
   reads and drops them; but not if the process has forked, because the data may belong
   to the other process. */
static int
drains_on_close(Duplex *self, struct ku_call *call)
{
    const struct ku_libssl *libssl = call->tls.libssl;
    return self->forks_made == ku_forks_made && !libssl->SSL_is_server(call->tls.ssl)
           && libssl->SSL_version(call->tls.ssl) == TLS1_3_VERSION;
}

/* In a callback of another connection this thread must not wait for the threads in this
   one.  Wake them instead: the last of them closes the socket. */
static int
close_pump(Duplex *self, struct ku_call *call)
{
    enum ku_progress progress;
    if (ku_call_run(self, call, close_action, NULL, &progress) < 0) {
        return -1;
    }
    if (progress == KU_REFUSED) {
        Py_BEGIN_ALLOW_THREADS
        ku_pump_close_from_outside(call);
        Py_END_ALLOW_THREADS
    }
    return 0;
}

/* The socket gives up its descriptor here, in C: between two lines of Python code, a
   signal handler's exception could leave a descriptor that nobody has.

   After a fork() none of the parent's threads is in the connection here, and we must
   not disturb the parent's end of it. */
static PyObject *
py_close(PyObject *object, PyObject *socket)
{
    Duplex *self = (Duplex *)object;
    ku_state *state = ku_state_of(self);
    PyObject *descriptor = PyObject_CallFunctionObjArgs(state->detach, socket, NULL);
    long long number = descriptor != NULL ? PyLong_AsLongLong(descriptor) : -1;
    Py_XDECREF(descriptor);
    if (number == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (number == -1) {
        Py_RETURN_NONE; /* another thread has detached it */
    }
    if (self->forks != ku_forks || self->pump.broken_by_fork || self->inner == NULL) {
        Py_BEGIN_ALLOW_THREADS
        ku_wire_close((ku_socket)number);
        Py_END_ALLOW_THREADS
        Py_RETURN_NONE;
    }
    struct ku_call call = {.pump = &self->pump};
    call.socket = (ku_socket)number;
    (void)ku_ledger_tls(state, self->inner, &call.tls);
    call.drains = drains_on_close(self, &call);
    if (close_pump(self, &call) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* --- everything else, one thread at a time ---------------------------------------- */

PyObject *
ku_duplex_inner(PyObject *duplex)
{
    return ((Duplex *)duplex)->inner;
}

int
ku_duplex_take_step(PyObject *duplex, const char *function, ku_step step,
                    intptr_t argument, int sent, int *value)
{
    Duplex *self = (Duplex *)duplex;
    int result = ku_call_take_step(self, function, step, argument, sent, value);
    return result == 0 && sent ? raise_of_callbacks(ku_state_of(self), self) : result;
}

int
ku_duplex_look(PyObject *duplex, const char *function, ku_step step, intptr_t argument,
               struct ku_outcome *outcome)
{
    Duplex *self = (Duplex *)duplex;
    ku_state *state = ku_state_of(self);
    int begun = ku_call_begin_look(state, self, function);
    if (begun < 0) {
        return -1;
    }
    struct ku_tls tls;
    *outcome = ku_refused(KU_NO_POINTER);
    if (ku_ledger_tls(state, self->inner, &tls)) {
        tls.argument = argument;
        *outcome = step(&tls);
    }
    ku_call_end_look(self, begun);
    return 0;
}

/* look(function, /, *args, **kwargs) */
static PyObject *
py_look(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_Size(args) < 1) {
        PyErr_SetString(PyExc_TypeError, "look() takes a function");
        return NULL;
    }
    PyObject *rest = PyTuple_GetSlice(args, 1, PyTuple_Size(args));
    int begun = rest != NULL ? ku_call_begin_look(ku_state_of((Duplex *)self),
                                                  (Duplex *)self, "ssl")
                             : -1;
    if (begun < 0) {
        Py_XDECREF(rest);
        return NULL;
    }
    PyObject *result = PyObject_Call(PyTuple_GetItem(args, 0), rest, kwargs);
    ku_call_end_look((Duplex *)self, begun);
    Py_DECREF(rest);
    return result;
}

/* Methods of the _SSLSocket come wrapped, as functools.partial(self.look, method):
   those that we do not define only tell about the connection, and do nothing to it.
   Steals `method`. */
static PyObject *
looking_method(ku_state *state, PyObject *self, PyObject *method)
{
    PyObject *look = PyObject_GetAttrString(self, "look");
    PyObject *result =
        look != NULL ? PyObject_CallFunctionObjArgs(state->partial, look, method, NULL)
                     : NULL;
    Py_XDECREF(look);
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
    int begun = ku_call_begin_look(state, (Duplex *)self, "ssl");
    if (begun < 0) {
        return NULL;
    }
    value = PyObject_GetAttr(ku_duplex_inner(self), name);
    ku_call_end_look((Duplex *)self, begun);
    return value != NULL && PyCFunction_Check(value)
               ? looking_method(state, self, value)
               : value;
}

/* An sni_callback sets `context`, in the middle of a step. */
static int
set_attribute(PyObject *self, PyObject *name, PyObject *value)
{
    int begun = ku_call_begin_look(ku_state_of((Duplex *)self), (Duplex *)self, "ssl");
    if (begun < 0) {
        return -1;
    }
    int result = PyObject_SetAttr(ku_duplex_inner(self), name, value);
    ku_call_end_look((Duplex *)self, begun);
    return result;
}

/* --- the type --------------------------------------------------------------------- */

/* Accept only a connection over memory BIOs that has not begun, so that nothing can be
   on its way in the BIO that we replace, and that no other Duplex holds. */
static int
find_fresh_connection(ku_state *state, PyObject *inner, struct ku_tls *tls)
{
    int is_over_memory =
        Py_TYPE(inner) == state->sslobject_type && ku_sslobject_is_bio(state, inner);
    if (!is_over_memory || !ku_ledger_tls(state, inner, tls)
        || ku_tls_state(tls) != KU_STATE_BEFORE
        || ku_tlsbio_of(tls->libssl, tls->ssl) != NULL) {
        PyErr_SetString(PyExc_ValueError,
                        "a Duplex is made of a new connection over memory BIOs");
        return -1;
    }
    return 0;
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
    struct ku_tls tls;
    if (find_fresh_connection(state, inner, &tls) < 0) {
        return NULL;
    }
    Duplex *self = (Duplex *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    Py_INCREF(inner);
    self->inner = inner;
    self->forks = self->adopted = ku_forks;
    self->forks_made = ku_forks_made;
    self->owner = PyWeakref_NewRef(owner, NULL);
    if (self->owner == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    if (ku_pump_create(&self->pump) < 0
        || ku_tlsbio_install(tls.libssl, state->bio_method, tls.ssl) < 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    self->pump.ledger = tls.ledger;
    if (tls.ledger != NULL) {
        ku_ledger_share(tls.ledger);
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
    {"read", (PyCFunction)(void (*)(void))ku_duplex_read, METH_FASTCALL,
     "read($self, length, buffer=<unrepresentable>, /)\n--\n\n"
     "As _ssl._SSLSocket.read(), for any number of threads."},
    {"write", ku_duplex_write, METH_O,
     "write($self, data, /)\n--\n\n"
     "As _ssl._SSLSocket.write(), for any number of threads."},
    {"pending", py_pending, METH_NOARGS,
     "pending($self, /)\n--\n\nReturn how many bytes read() gives without waiting."},
    {"do_handshake", py_do_handshake, METH_NOARGS,
     "do_handshake($self, /)\n--\n\nAs _ssl._SSLSocket.do_handshake()."},
    {"verify_client_post_handshake", py_verify_client, METH_NOARGS,
     "verify_client_post_handshake($self, /)\n--\n\nAs that of _ssl._SSLSocket."},
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
    {"rotate", py_rotate, METH_NOARGS,
     "rotate($self, /)\n--\n\n"
     "Get new keys if they are old and nobody uses them, without waiting.  Return the\n"
     "microseconds until the next call, or -1 if there need be none."},
    {"give_up", py_give_up, METH_VARARGS,
     "give_up($self, function, /)\n--\n\n"
     "End the connection, whose keys are too old."},
    {"close", py_close, METH_O,
     "close($self, socket, /)\n--\n\n"
     "Take the socket's descriptor and wake the threads that are in the connection;\n"
     "the last one closes it."},
    {"look", (PyCFunction)(void (*)(void))py_look, METH_VARARGS | METH_KEYWORDS,
     "look($self, function, /, *args, **kwargs)\n--\n\n"
     "Call a function while no other thread is in the connection."},
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
