#include "streams/object_io.h"

#include "keys/notes.h"
#include "keys/opening.h"
#include "keys/policy.h"
#include "openssl/errors.h"
#include "openssl/object_lock.h"
#include "openssl/questions.h"
#include "streams/callbacks.h"

#include <string.h>

PyObject *
ku_io_raise_cut(struct ku_io *io)
{
    struct ku_outcome outcome =
        ku_refused_because(KU_PEER_LIMIT, io->tls.ledger->why_cut);
    return ku_raise(io->state, &outcome, io->function, io->self);
}

ManagedObject *
ku_io_object(const struct ku_io *io)
{
    return (ManagedObject *)io->self;
}

int
ku_io_is_of_asyncio(const struct ku_io *io)
{
    PyObject *transport = ku_io_object(io)->transport;
    return transport != NULL && transport != Py_None;
}

int
ku_io_ask_object(struct ku_io *io, const char *method)
{
    PyObject *answer = PyObject_CallMethod(io->self, method, NULL);
    int is_true = answer == NULL ? -1 : answer == Py_True;
    Py_XDECREF(answer);
    return is_true;
}

int
ku_io_reads_again_soon(struct ku_io *io)
{
    return ku_io_ask_object(io, "_read_again_soon");
}

/* While an on_impossible function is asked whether a write may go on, another write
   would overtake that one; and asyncio's transport does not expect to be used then.
   Returns 0, or -1 with an exception. */
static int
refuse_in_between(struct ku_io *io, int writes)
{
    unsigned long asking = io->tls.ledger->asking_thread;
    struct ku_outcome outcome = {.refusal = KU_IO, .value = SSL_ERROR_WANT_READ};
    if (asking == 0) {
        return 0;
    }
    if (asking != PyThread_get_thread_ident()) {
        outcome = ku_refused(KU_BUSY);
    }
    else if (ku_io_is_of_asyncio(io)) {
        if (ku_io_reads_again_soon(io) < 0) {
            return -1;
        }
    }
    else if (!writes) {
        return 0;
    }
    ku_raise(io->state, &outcome, io->function, io->self);
    return -1;
}

int
ku_io_begin(struct ku_io *io, PyTypeObject *defining, PyObject *self,
            const char *function)
{
    *io = (struct ku_io){.self = self, .function = function};
    io->state = PyType_GetModuleState(defining);
    KU_LOCK_OBJECT(self); /* another thread may set `_sslobj` */
    io->inner = ((ManagedObject *)self)->inner;
    Py_XINCREF(io->inner);
    KU_UNLOCK_OBJECT();
    if (io->inner != NULL && Py_TYPE(io->inner) == io->state->sslobject_type) {
        (void)ku_ledger_tls(io->state, io->inner, &io->tls);
    }
    if (io->tls.ledger == NULL) {
        ku_raise_refusal(io->state, KU_UNMANAGED, function, self);
        return -1;
    }
    if (io->tls.ledger->why_cut != NULL) {
        ku_io_raise_cut(io);
        return -1;
    }
    return refuse_in_between(io, strcmp(function, "write") == 0);
}

/* While one action is under way, refuse any other, of another thread or of a callback:
   it would break the connection, or crash.  (ssl's own objects allow it.) */
static int
run_in_openssl(struct ku_io *io, ku_io_action action, void *argument,
               int has_little_to_do, struct ku_outcome *outcome)
{
    *outcome = ku_ledger_occupy(io->tls.ledger);
    if (outcome->refusal != KU_OK) {
        return 0;
    }
    int keeps_gil = has_little_to_do && io->state->keeps_gil;
    PyThreadState *thread = keeps_gil ? NULL : PyEval_SaveThread();
    int done = action(io, argument, outcome);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
    ku_ledger_vacate(io->tls.ledger);
    return done;
}

int
ku_io_try(struct ku_io *io, ku_io_action action, void *argument, int has_little_to_do,
          struct ku_outcome *outcome)
{
    int done;
    KU_LOCK_OBJECT(io->inner);
    done = run_in_openssl(io, action, argument, has_little_to_do, outcome);
    KU_UNLOCK_OBJECT();
    return PyErr_Occurred() ? -1 : done; /* of a _msg_callback (_ssl of 3.15) */
}

int
ku_io_raise(struct ku_io *io, const struct ku_outcome *given)
{
    struct ku_outcome outcome = *given;
    if (outcome.refusal == KU_IO && outcome.value == SSL_ERROR_SYSCALL
        && outcome.error == 0 && !io->tls.ledger->connected) {
        outcome.detail = "Some I/O error occurred";
    }
    if (io->tls.ledger->why_cut != NULL) {
        ku_io_raise_cut(io);
    }
    else {
        ku_raise(io->state, &outcome, io->function, io->self);
    }
    return -1;
}

static int
renew_step(struct ku_io *io, void *ignored, struct ku_outcome *outcome)
{
    (void)ignored, (void)outcome;
    if (!ku_io_object(io)->closing && ku_policy_renew_if_due(&io->tls)) {
        (void)ku_do_handshake(&io->tls);
    }
    return 1; /* a failure shows in the next call */
}

int
ku_io_renew(struct ku_io *io)
{
    struct ku_outcome ignored = {.refusal = KU_OK};
    int done = ku_io_try(io, renew_step, NULL, 1, &ignored);
    return done < 0 ? -1 : 0; /* busy: the other call renews them */
}

PyObject *
ku_io_unless_callbacks_raised(struct ku_io *io, PyObject *result)
{
    int of_data = result != NULL && strcmp(io->function, "read") == 0;
    PyObject *type, *value, *traceback;
    if (!io->tls.ledger->has_callbacks) {
        return result;
    }
    PyErr_Fetch(&type, &value, &traceback);
    KU_LOCK_OBJECT(io->inner);
    if (ku_ledger_occupy(io->tls.ledger).refusal == KU_OK) {
        (void)ku_raise_callback_exception(io->state, io->inner, of_data);
        ku_ledger_vacate(io->tls.ledger);
    }
    KU_UNLOCK_OBJECT();
    ku_restore_exception(type, value, traceback);
    if (PyErr_Occurred()) {
        Py_CLEAR(result);
    }
    return result;
}

PyObject *
ku_io_finish(struct ku_io *io, PyObject *result)
{
    ku_collect_events(io->inner, io->tls.ledger, &io->report);
    if (io->report.events == 0) {
        return result;
    }
    unsigned long asking = io->tls.ledger->asking_thread;
    if (ku_io_is_of_asyncio(io)) {
        io->tls.ledger->asking_thread = PyThread_get_thread_ident();
    }
    if (ku_tell_events(io->state, io->self, &io->report) < 0) {
        Py_CLEAR(result);
    }
    io->tls.ledger->asking_thread = asking;
    return result;
}

int
ku_io_is_renegotiating(const struct ku_io *io)
{
    const struct ku_libssl *libssl = io->tls.libssl;
    return io->tls.ledger->connected && !ku_is_tls13(&io->tls)
           && !libssl->SSL_is_init_finished(io->tls.ssl) && !ku_has_failed(&io->tls);
}
