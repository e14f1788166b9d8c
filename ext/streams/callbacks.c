#include "streams/callbacks.h"

#include "keys/opening.h"
#include "openssl/questions.h"
#include "openssl/sslobject.h"

int
ku_has_callbacks(PyObject *sslobj)
{
#if PY_VERSION_HEX >= 0x030f0000
    (void)sslobj;
    return 0; /* they are raised at once */
#else
    PyObject *context = PyObject_GetAttrString(sslobj, "context");
    static const char *const NAMES[] = {"_msg_callback", "keylog_filename"};
    int found = context != NULL ? 0 : -1;
    for (int i = 0; i < 2 && found == 0; i++) {
        PyObject *value = PyObject_GetAttrString(context, NAMES[i]);
        found = value == NULL ? -1 : value != Py_None;
        Py_XDECREF(value);
    }
    Py_XDECREF(context);
    return found;
#endif
}

int
ku_raise_callback_exception(ku_state *state, PyObject *sslobj, int of_data)
{
    struct ku_tls tls;
    if (!ku_ledger_tls(state, sslobj, &tls)) {
        return 0;
    }
    struct ku_ledger *ledger = tls.ledger;
    if (!state->libssl.SSL_is_init_finished(tls.ssl) || ku_renegotiates(&tls)) {
        if (ledger != NULL) {
            ledger->older_exception = 1;
        }
        return 0;
    }
    int may_be_older = ledger != NULL && ledger->older_exception;
    if (ledger != NULL) {
        ledger->older_exception = 0;
    }
    PyObject *done = PyObject_CallMethod(sslobj, "do_handshake", NULL);
    if (done == NULL && may_be_older && of_data) {
        PyErr_Clear();
        return 0;
    }
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}
