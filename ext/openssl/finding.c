#include "openssl/finding.h"

#include "openssl/errors.h"
#include "openssl/sslobject.h"

/* `_sslobj` is None before connect(), and again after unwrap() or close().
   `_connected` tells the two apart. */
static void
refuse_without_sslobj(ku_state *state, const char *function, PyObject *conn)
{
    PyObject *name = PyUnicode_FromString("_connected");
    PyObject *connected = name != NULL ? ku_own_attribute(state, conn, name) : NULL;
    Py_XDECREF(name);
    if (connected == NULL) {
        return;
    }
    ku_raise_refusal(state, connected == Py_False ? KU_NOT_CONNECTED : KU_CLOSED,
                     function, conn);
    Py_DECREF(connected);
}

PyObject *
ku_find_sslobject(ku_state *state, const char *function, PyObject *conn)
{
    PyObject *holder = NULL;
    if (state->sslobj_name == NULL) { /* module_clear() (module.c) has run */
        return ku_raise_refusal(state, KU_CLOSED, function, conn);
    }
    PyObject *found = ku_sslobject_search(state, function, conn, &holder);
    int is_none = found == Py_None, is_other = found == Py_NotImplemented;
    if (is_none || is_other) {
        Py_CLEAR(found);
    }
    if (is_none) {
        refuse_without_sslobj(state, function, holder);
    }
    else if (is_other) {
        ku_raise_refusal(state, KU_NO_POINTER, function, conn);
    }
    Py_XDECREF(holder);
    return found;
}
