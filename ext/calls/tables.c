#include "calls/tables.h"

#include "calls/rekeying.h"
#include "keys/survey.h"
#include "keys/wishes.h"
#include "openssl/errors.h"

static const char *const MODES[] = {
#define KU_NAME(number, name) #name,
    KU_MODES(KU_NAME)
#undef KU_NAME
        NULL};

static const char *const RULES[] = {
#define KU_NAME(kind, name) #name,
    KU_RULES(KU_NAME)
#undef KU_NAME
        NULL};

static const char *const EVENTS[] = {
#define KU_NAME(number, bit, name, level) #name,
    KU_EVENTS(KU_NAME)
#undef KU_NAME
        NULL};

static const char *const LEVELS[] = {
#define KU_NAME(number, bit, name, level) #level,
    KU_EVENTS(KU_NAME)
#undef KU_NAME
        NULL};

static const char *const COUNTERS[] = {
#define KU_NAME(number, name) #name,
    KU_COUNTERS(KU_NAME)
#undef KU_NAME
        NULL};

static const char *const TO_SEND[] = {
#define KU_NAME(number, name) #name,
    KU_TO_SEND(KU_NAME)
#undef KU_NAME
        NULL};

#define KU_BOUND(bound) " " #bound
static const char *const BOUNDS[] = {"ages" KU_AGE_BOUNDS(KU_BOUND),
                                     "records" KU_RECORD_BOUNDS(KU_BOUND), NULL};
#undef KU_BOUND

static PyObject *
list_of(const char *const names[])
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && names[i] != NULL; i++) {
        PyObject *name = PyUnicode_FromString(names[i]);
        if (name == NULL || PyList_Append(list, name) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    return list;
}

/* The numbers that Python has under the same names (_policy.py, _events.py). */
static PyObject *
numbers(void)
{
    PyObject *bits = PyList_New(0);
#define KU_BIT(number, bit, name, level)                                               \
    if (bits != NULL) {                                                                \
        PyObject *value = PyLong_FromLong(bit);                                        \
        if (value == NULL || PyList_Append(bits, value) < 0) {                         \
            Py_CLEAR(bits);                                                            \
        }                                                                              \
        Py_XDECREF(value);                                                             \
    }
    KU_EVENTS(KU_BIT)
#undef KU_BIT
    return Py_BuildValue("{s:N,s:K,s:K,s:L}", "event_bits", bits, "NO_LIMIT",
                         (unsigned long long)KU_NO_LIMIT, "ANY_NUMBER",
                         (unsigned long long)KU_ANY_NUMBER, "NEVER",
                         (long long)KU_NEVER);
}

int
ku_tables_add(PyObject *module)
{
    PyObject *tables = Py_BuildValue(
        "{s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N,s:N}", "modes", list_of(MODES),
        "rules", list_of(RULES), "events", list_of(EVENTS), "levels", list_of(LEVELS),
        "counters", list_of(COUNTERS), "to_send", list_of(TO_SEND), "bounds",
        list_of(BOUNDS), "changes", list_of(ku_change_names), "limits",
        list_of(ku_limit_names), "causes", list_of(ku_cause_names), "refusals",
        ku_list_refusals(), "numbers", numbers());
    int result = tables != NULL ? PyObject_SetAttrString(module, "tables", tables) : -1;
    Py_XDECREF(tables);
    return result < 0 || PyModule_AddIntConstant(module, "WANTED", KU_WANTED) < 0
                   || PyModule_AddIntConstant(module, "WANTED_OF_BOTH",
                                              KU_WANTED_OF_BOTH)
                          < 0
                   || PyModule_AddIntConstant(module, "UNLESS_INHERITED",
                                              KU_UNLESS_INHERITED)
                          < 0
                   || PyModule_AddIntConstant(module, "FOR_ALL", KU_FOR_ALL) < 0
               ? -1
               : 0;
}
