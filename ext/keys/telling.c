#include "keys/telling.h"

#include "keys/key_clock.h"
#include "keys/notes.h"
#include "keys/opening.h"
#include "openssl/errors.h"
#include "openssl/object_lock.h"
#include "openssl/sslobject.h"

enum { LOGGING_DEBUG = 10, LOGGING_INFO = 20, LOGGING_WARNING = 30 };

void
ku_take_events(struct ku_ledger *ledger, struct ku_report *report)
{
    int events = ku_ledger_take_events(ledger);
    if (events == 0) {
        return; /* as after most calls */
    }
    report->events |= events;
    report->why_cut = ledger->why_cut;
    report->why_changed = ledger->why_changed;
    report->why_due = ledger->why_due;
    if (events & KU_EVENT_FAILED) {
        report->since_update = ku_key_clock() - ledger->last_update;
    }
}

/* The function that is called may use the connection.  It may not write:
   `asking_thread` is how another write is recognized and refused. */
int
ku_ask_on_impossible(ku_state *state, PyObject *conn, const char *function,
                     const struct ku_outcome *outcome, struct ku_ledger *ledger,
                     struct ku_report *report)
{
    PyObject *reason = ku_reason(state, outcome);
    enum ku_cause cause = ku_cause_of(outcome);
    PyObject *answer = NULL;
    if (ku_ledger_note_impossible(ledger, cause)) {
        report->events |= KU_EVENT_IMPOSSIBLE;
        report->impossible = *outcome;
    }
    if (reason != NULL && state->act_on_impossible == NULL) {
        PyErr_SetString(PyExc_RuntimeError, KU_SHUTTING_DOWN);
    }
    else if (reason != NULL) {
        unsigned long asking = ledger->asking_thread;
        ledger->asking_thread = PyThread_get_thread_ident();
        answer = PyObject_CallFunction(state->act_on_impossible, "OsOs", conn, function,
                                       reason, ku_cause_names[cause]);
        ledger->asking_thread = asking;
    }
    if (answer == NULL) {
        ku_ledger_note_refused_write(ledger);
    }
    Py_XDECREF(reason);
    Py_XDECREF(answer);
    return answer != NULL ? 0 : -1;
}

/* isEnabledFor() of the logger `pykeyupdate`, as a new reference.  NULL if the program has
   not imported logging, and so cannot have set a level, or with an exception. */
static PyObject *
find_logger(void)
{
    PyObject *name = PyUnicode_FromString("logging");
    PyObject *logging = name != NULL ? PyImport_GetModule(name) : NULL;
    Py_XDECREF(name);
    PyObject *get =
        logging != NULL ? PyObject_GetAttrString(logging, "getLogger") : NULL;
    Py_XDECREF(logging);
    if (get == NULL && PyErr_Occurred()
        && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear(); /* another thread is importing it */
    }
    if (get == NULL) {
        return NULL;
    }
    PyObject *logger = PyObject_CallFunction(get, "s", "pykeyupdate");
    Py_DECREF(get);
    PyObject *logs_at =
        logger != NULL ? PyObject_GetAttrString(logger, "isEnabledFor") : NULL;
    Py_XDECREF(logger);
    return logs_at;
}

/* Keep what was found, unless another thread has kept it meanwhile.  Returns what is kept,
   as a new reference, or NULL.  Steals `found`. */
static PyObject *
keep_logger(ku_state *state, PyObject *found)
{
    PyObject *kept;
    KU_LOCK_OBJECT(state->event_handlers); /* an object of this interpreter's alone */
    if (state->logs_at == NULL) {
        state->logs_at = found;
        found = NULL;
    }
    kept = state->logs_at;
    Py_XINCREF(kept);
    KU_UNLOCK_OBJECT();
    Py_XDECREF(found);
    return kept;
}

/* As find_logger(), but look for it only once. */
static PyObject *
logger_of(ku_state *state)
{
    PyObject *kept = keep_logger(state, NULL);
    PyObject *found = kept == NULL ? find_logger() : NULL;
    return found != NULL ? keep_logger(state, found) : kept;
}

/* Is anybody told of these events?  Mostly not: programs have no handler, and do not log
   at DEBUG.  Keys may change with every record, so ask before anything is built.
   Returns -1 with an exception, which may be a signal handler's. */
static int
has_listener(ku_state *state, int events)
{
#define KU_IF_DEBUG(number, bit, name, level)                                          \
    | (LOGGING_##level == LOGGING_DEBUG ? (bit) : 0)
    const int at_debug = 0 KU_EVENTS(KU_IF_DEBUG);
#undef KU_IF_DEBUG
    if ((events & ~at_debug) != 0 || PyDict_Size(state->event_handlers) != 0) {
        return 1;
    }
    PyObject *logs_at = logger_of(state);
    if (logs_at == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    PyObject *answer = PyObject_CallFunction(logs_at, "i", LOGGING_DEBUG);
    Py_DECREF(logs_at);
    int logs = answer != NULL ? PyObject_IsTrue(answer) : -1;
    Py_XDECREF(answer);
    return logs;
}

/* Returns a new reference to None, or NULL with an exception. */
static PyObject *
call_tell_events(ku_state *state, PyObject *conn, const struct ku_report *report)
{
    int listens = has_listener(state, report->events);
    if (listens <= 0) {
        Py_INCREF(Py_None);
        return listens == 0 ? Py_None : NULL;
    }
    PyObject *impossible = report->events & KU_EVENT_IMPOSSIBLE
                               ? ku_reason(state, &report->impossible)
                               : PyUnicode_FromString("");
    const char *cause = ku_cause_names[ku_cause_of(&report->impossible)];
    PyObject *told = NULL;
    if (impossible != NULL) {
        told = PyObject_CallFunction(
            state->tell_events, "OizOsssd", conn, report->events, report->why_cut,
            impossible, cause, ku_change_names[report->why_changed],
            ku_change_names[report->why_due], (double)report->since_update / 1e6);
        Py_DECREF(impossible);
    }
    return told;
}

/* First run the signal handlers that are due.  Reporting is Python code, which would
   run them, and their exceptions could be taken for an event handler's. */
int
ku_tell_events(ku_state *state, PyObject *conn, const struct ku_report *report)
{
    PyObject *type, *value, *traceback;
    if (report->events == 0 || state->tell_events == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!PyErr_Occurred()) {
        (void)PyErr_CheckSignals();
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *told = call_tell_events(state, conn, report);
    Py_XDECREF(told);
    if (told != NULL) {
        PyErr_Restore(type, value, traceback);
    }
    else if (type != NULL) {
        ku_chain_exception(type, value, traceback);
    }
    return PyErr_Occurred() ? -1 : 0;
}

/* Only who occupies the object may touch its ledger's events: OpenSSL may be adding to them
   in another thread. */
void
ku_collect_events(PyObject *sslobj, struct ku_ledger *ledger, struct ku_report *report)
{
    KU_LOCK_OBJECT(sslobj);
    if (ku_ledger_occupy(ledger).refusal == KU_OK) {
        ku_take_events(ledger, report);
        ku_ledger_vacate(ledger);
    }
    KU_UNLOCK_OBJECT();
}

int
ku_tell_events_of_object(ku_state *state, PyObject *sslobj)
{
    PyObject *type, *value, *traceback, *owner = NULL;
    struct ku_report report = {0};
    PyErr_Fetch(&type, &value, &traceback);
    SSL *ssl = ku_sslobject_ssl(state, sslobj);
    struct ku_ledger *ledger = ssl != NULL ? ku_ledger_of(ssl) : NULL;
    if (ledger != NULL && !ledger->is_shared) {
        ku_collect_events(sslobj, ledger, &report);
    }
    if (report.events != 0) {
        owner = PyObject_GetAttrString(sslobj, "owner");
        PyErr_Clear(); /* its owner may be gone */
    }
    PyErr_Restore(type, value, traceback);
    int result = ku_tell_events(state, owner != NULL ? owner : sslobj, &report);
    Py_XDECREF(owner);
    return result;
}
