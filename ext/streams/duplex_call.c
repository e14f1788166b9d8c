#include "streams/duplex_call.h"

#include "keys/notes.h"
#include "keys/opening.h"
#include "keys/policy.h"
#include "openssl/errors.h"
#include "openssl/object_lock.h"
#include "openssl/sslobject.h"
#include "streams/socket_fields.h"
#include "streams/traffic.h"

#include <errno.h>

ku_state *
ku_state_of(Duplex *self)
{
    return PyType_GetModuleState(Py_TYPE(self));
}

/* A new reference to the object that a weak reference refers to; NULL if that is
   gone. */
static PyObject *
weakref_target(PyObject *reference)
{
    PyObject *object = NULL;
#if PY_VERSION_HEX >= 0x030d0000
    (void)PyWeakref_GetRef(reference, &object);
#else
    object = PyWeakref_GetObject(reference);
    object = object != Py_None ? object : NULL;
    Py_XINCREF(object);
#endif
    return object;
}

PyObject *
ku_owner_of(Duplex *self)
{
    PyObject *owner = self->owner != NULL ? weakref_target(self->owner) : NULL;
    if (owner == NULL) {
        PyErr_Clear();
        owner = (PyObject *)self;
        Py_INCREF(owner);
    }
    return owner;
}

static void
refuse_owner(ku_state *state, enum ku_refusal refusal, const char *function,
             Duplex *self)
{
    PyObject *owner = ku_owner_of(self);
    ku_raise_refusal(state, refusal, function, owner);
    Py_DECREF(owner);
}

/* After a fork() the first use makes the pump this process's own. */
static void
notice_fork(Duplex *self)
{
    KU_LOCK_OBJECT(self); /* two threads of the child may be the first */
    if (self->forks != ku_forks) {
        ku_pump_forked(&self->pump);
        self->forks = ku_forks;
    }
    KU_UNLOCK_OBJECT();
}

/* Let Python watch a connection that this process has inherited.  Returns 0, or -1 with
   an exception. */
static int
adopt(Duplex *self)
{
    self->adopted = ku_forks;
    PyObject *owner = ku_owner_of(self);
    PyObject *done = owner != (PyObject *)self
                         ? PyObject_CallMethod(owner, "_adopt", NULL)
                         : PyBool_FromLong(0);
    Py_DECREF(owner);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

/* Every use of the pump begins with this.  Returns 0, or -1 with an exception if it
   cannot be used (in this process). */
static int
check_usable(ku_state *state, Duplex *self, const char *function)
{
    notice_fork(self);
    if (self->inner == NULL || self->pump.broken_by_fork) {
        refuse_owner(state, self->inner == NULL ? KU_CLOSED : KU_FORKED, function,
                     self);
        return -1;
    }
    return self->adopted != ku_forks ? adopt(self) : 0;
}

/* The rule of re-entry, for sockets; ku_ledger_occupy() (keys/notes.c) has it for
   objects.  While a thread is in a step of a connection, OpenSSL is in the middle of
   something, and only looking is safe. */
int
ku_call_refuse_reentry(ku_state *state, Duplex *self, const char *function)
{
    if (!ku_monitor_is_mine(&self->pump.monitor)) {
        return 0;
    }
    refuse_owner(state, KU_IN_CALLBACK, function, self);
    return -1;
}

/* Two threads, each in a callback of one connection and looking at the other's, would
   wait for each other forever.  So after a moment, which is longer than a step takes,
   look without entering: the other thread is in Python code (or about to be), and
   OpenSSL is at rest. */
#define LOOK_PATIENCE 5000 /* microseconds */

int
ku_call_begin_look(ku_state *state, Duplex *self, const char *function)
{
    struct ku_monitor *monitor = &self->pump.monitor;
    if (check_usable(state, self, function) < 0) {
        return -1;
    }
    if (ku_monitor_try_enter(monitor)) {
        return 1;
    }
    /* Release the GIL only if there is a thread to wait for: another one might take the
       GIL, and keep it for a while. */
    int entered = 1;
    Py_BEGIN_ALLOW_THREADS
    if (ku_monitor_any_is_mine()) {
        entered = ku_monitor_enter_within(monitor, LOOK_PATIENCE);
    }
    else {
        ku_monitor_enter(monitor);
    }
    Py_END_ALLOW_THREADS
    return entered;
}

void
ku_call_end_look(Duplex *self, int begun)
{
    if (begun > 0) {
        ku_threads_leave(&self->pump, 0);
    }
}

static PyObject *
bad_descriptor(const char *text)
{
    PyObject *arguments = Py_BuildValue("(is)", EBADF, text);
    if (arguments != NULL) {
        PyErr_SetObject(PyExc_OSError, arguments);
        Py_DECREF(arguments);
    }
    return NULL;
}

/* The ssl module's error if a program has kept `_sslobj`, but not the socket. */
static void
raise_no_socket(ku_state *state, Duplex *self, const char *function)
{
    struct ku_outcome outcome = {.refusal = KU_IO, .value = PY_SSL_ERROR_NO_SOCKET};
    ku_raise(state, &outcome, function, (PyObject *)self);
}

static int
prepare_tls(ku_state *state, Duplex *self, const char *function, struct ku_call *call)
{
    call->pump = &self->pump;
    if (!ku_ledger_tls(state, self->inner, &call->tls)) {
        refuse_owner(state, KU_NO_POINTER, function, self);
        return -1;
    }
    return 0;
}

/* Fill in a call.  `given` is a timeout in seconds, or None for no limit; NULL means
   the socket's own.  Returns 0, or -1 with an exception. */
static int
prepare_call(ku_state *state, Duplex *self, const char *function, PyObject *given,
             struct ku_call *call)
{
    double own = -1.0;
    PyObject *owner = ku_owner_of(self);
    if (owner == (PyObject *)self) {
        Py_DECREF(owner);
        raise_no_socket(state, self, function);
        return -1;
    }
    int result = ku_socket_fields(state, owner, &call->socket, &own);
    Py_DECREF(owner);
    double timeout = own;
    if (result == 0 && given != NULL) {
        timeout = given == Py_None ? -1.0 : PyFloat_AsDouble(given);
        result = PyErr_Occurred() ? -1 : 0;
    }
    if (result == 0 && call->socket == KU_NO_SOCKET) {
        bad_descriptor("Bad file descriptor");
        result = -1;
    }
    if (result < 0) {
        return -1;
    }
    call->blocks = timeout < 0 && own < 0;
    call->deadline = ku_deadline(timeout);
    return prepare_tls(state, self, function, call);
}

/* Between two tries: run signal handlers, or ask whether data may go on under keys that
   cannot be changed.  Returns 0, or -1 with an exception. */
static int
run_handlers_or_ask(Duplex *self, struct ku_call *call, enum ku_progress progress)
{
    if (progress == KU_INTERRUPTED) {
        return PyErr_CheckSignals();
    }
    PyObject *owner = ku_owner_of(self);
    int result = ku_ask_on_impossible(ku_state_of(self), owner, "write", &call->outcome,
                                      call->pump->ledger, &call->report);
    Py_DECREF(owner);
    return result;
}

/* A signal handler may have called fork(), and this may be the child, where only this
   thread exists. */
static int
is_broken_by_fork(Duplex *self, struct ku_call *call)
{
    if (self->forks == ku_forks) {
        return 0;
    }
    notice_fork(self);
    return call->pump->broken_by_fork;
}

/* Leave the monitor between two tries, and run Python code.  Returns 1 to try again. */
static int
pause_for_python(Duplex *self, struct ku_call *call, enum ku_progress *progress,
                 PyThreadState **thread)
{
    ku_threads_pause(call);
    PyEval_RestoreThread(*thread);
    int goes_on = run_handlers_or_ask(self, call, *progress) == 0;
    int broken = is_broken_by_fork(self, call);
    *thread = PyEval_SaveThread();
    ku_threads_resume(call);
    if (broken) {
        *progress = KU_REFUSED;
        call->outcome = ku_refused(KU_FORKED);
    }
    else if (goes_on && *progress == KU_NO_NEW_KEYS) {
        ku_policy_permit_overuse(call->pump->ledger);
    }
    return goes_on && !broken;
}

int
ku_call_run(Duplex *self, struct ku_call *call, ku_action action, void *argument,
            enum ku_progress *progress)
{
    PyThreadState *thread = PyEval_SaveThread();
    if (ku_threads_enter(call) < 0) {
        PyEval_RestoreThread(thread);
        *progress = KU_REFUSED;
        call->outcome = ku_refused(KU_ELSEWHERE);
        return 0;
    }
    do {
        *progress = action(call, argument);
    } while ((*progress == KU_INTERRUPTED || *progress == KU_NO_NEW_KEYS)
             && pause_for_python(self, call, progress, &thread));
    if (*progress == KU_SYSTEM && ku_wire_is_gone(call->error)
        && call->pump->ledger != NULL) {
        ku_ledger_note_end(call->pump->ledger, 0);
    }
    ku_threads_exit(call);
    PyEval_RestoreThread(thread);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *
raise_timeout(const char *what)
{
    PyObject *socket = PyImport_ImportModule("socket");
    PyObject *class = socket != NULL ? PyObject_GetAttrString(socket, "timeout") : NULL;
    if (class != NULL) {
        PyErr_Format(class, "The %s operation timed out", what);
    }
    Py_XDECREF(class);
    Py_XDECREF(socket);
    return NULL;
}

/* Raise the exception for the result of a call.  Always returns NULL. */
static PyObject *
raise_progress(ku_state *state, Duplex *self, enum ku_progress progress,
               struct ku_call *call, const char *what)
{
    struct ku_outcome outcome = {.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    switch (progress) {
    case KU_WANT_WRITE: outcome.value = SSL_ERROR_WANT_WRITE; break;
    case KU_TIMED_OUT: return raise_timeout(what);
    case KU_CLOSED_HERE:
        return bad_descriptor("the socket was closed by another thread");
    case KU_ENDED:
    case KU_REFUSED: outcome = call->outcome; break;
    case KU_SYSTEM:
        outcome.value = 0;
        outcome.system_error = call->error;
        break;
    case KU_STASH_FULL: outcome.refusal = KU_DATA_IN_FRONT; break;
    case KU_NO_MEMORY: return PyErr_NoMemory();
    default: break;
    }
    PyObject *owner = ku_owner_of(self);
    ku_raise(state, &outcome, what, owner);
    Py_DECREF(owner);
    return NULL;
}

/* Run a call that has been prepared, raise what it came to, and report its events.
   Returns a borrowed None, or NULL with an exception. */
static PyObject *
run_and_tell(ku_state *state, Duplex *self, struct ku_call *call, const char *what,
             ku_action action, void *argument)
{
    enum ku_progress progress;
    PyObject *result = NULL;
    if (ku_call_run(self, call, action, argument, &progress) == 0) {
        result = progress == KU_DONE
                     ? Py_None
                     : raise_progress(state, self, progress, call, what);
    }
    if (call->report.events != 0) {
        PyObject *owner = ku_owner_of(self);
        result = ku_tell_events(state, owner, &call->report) == 0 ? result : NULL;
        Py_DECREF(owner);
    }
    return result;
}

PyObject *
ku_call_perform(Duplex *self, const char *what, PyObject *timeout, ku_action action,
                void *argument)
{
    struct ku_call call = {0};
    ku_state *state = ku_state_of(self);
    if (check_usable(state, self, what) < 0
        || ku_call_refuse_reentry(state, self, what) < 0
        || prepare_call(state, self, what, timeout, &call) < 0) {
        return NULL;
    }
    return run_and_tell(state, self, &call, what, action, argument);
}

PyObject *
ku_call_perform_here(Duplex *self, const char *what, ku_action action, void *argument)
{
    struct ku_call call = {.socket = KU_NO_SOCKET, .deadline = KU_AT_ONCE};
    ku_state *state = ku_state_of(self);
    if (check_usable(state, self, what) < 0
        || ku_call_refuse_reentry(state, self, what) < 0
        || prepare_tls(state, self, what, &call) < 0) {
        return NULL;
    }
    return run_and_tell(state, self, &call, what, action, argument);
}

struct taking {
    ku_step step;
    intptr_t argument;
    int sent, taken, value;
};

/* After an interruption this goes on with sending, and does not take the step again. */
static enum ku_progress
take_action(struct ku_call *call, void *argument)
{
    struct taking *taking = argument;
    if (!taking->taken) {
        enum ku_progress progress =
            ku_pump_take_step(call, taking->step, taking->argument);
        if (progress != KU_DONE) {
            ku_traffic_flush(call); /* there may be an alert */
            return progress;
        }
        taking->taken = 1;
        taking->value = call->outcome.value;
    }
    return taking->sent ? ku_traffic_send(call) : KU_DONE;
}

int
ku_call_take_step(Duplex *self, const char *function, ku_step step, intptr_t argument,
                  int sent, int *value)
{
    struct taking taking = {step, argument, sent, 0, 0};
    PyObject *done = sent ? ku_call_perform(self, function, NULL, take_action, &taking)
                          : ku_call_perform_here(self, function, take_action, &taking);
    *value = taking.value;
    return done != NULL ? 0 : -1;
}
