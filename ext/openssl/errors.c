/* Turns refusals into exceptions of pykeyupdate._errors.

   The class tells a program what to do (try later, or never); the message tells a
   person which call was refused, on which connection, why, and the remedy.  OpenSSL's
   own refusals look as _ssl makes them: args (reason code, text), .library, .reason
   (_ssl.c, fill_and_set_sslerror).  Failed I/O, and what ends a connection in a
   handshake step of ours, raises the ssl module's own exception (_ssl.c,
   PySSL_SetError). */
#include "openssl/errors.h"

#include "openssl/sslobject.h"

#include <errno.h>
#include <string.h>

/* Will it be the same later on this connection? */
enum ku_duration { NOT_NOW, NEVER };

static const struct {
    enum ku_duration duration;
    const char *exception, *text;
} REFUSALS[] = {
#define KU_ROW(refusal, duration, exception, text)                                     \
    [refusal] = {duration, #exception, text},
    KU_REFUSALS(KU_ROW)
#undef KU_ROW
};

/* At shutdown module_clear() clears the reference to the module, and Python sets a
   module's names to None while the module still exists. */
static PyObject *
exception_class(ku_state *state, const char *name)
{
    PyObject *class = NULL;
    if (state->errors != NULL) {
        class = PyObject_GetAttrString(state->errors, name);
        if (class == NULL || PyExceptionClass_Check(class)) {
            return class;
        }
        Py_DECREF(class);
    }
    PyErr_SetString(PyExc_RuntimeError, KU_SHUTTING_DOWN);
    return NULL;
}

static PyObject *
raise_class(ku_state *state, const char *class_name, PyObject *message)
{
    PyObject *class = message ? exception_class(state, class_name) : NULL;
    if (class != NULL) {
        PyErr_SetObject(class, message);
    }
    Py_XDECREF(class);
    Py_XDECREF(message);
    return NULL;
}

/* Did a signal handler raise the current exception (pykeyupdate/_signal_handlers.py)?  Returns 1
   and leaves it set, or clears it and returns 0. */
static int
keep_if_of_signal_handler(void)
{
    PyObject *type, *value, *traceback, *answer = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    PyObject *signals = PyImport_ImportModule("pykeyupdate._signal_handlers");
    if (signals != NULL) {
        answer = PyObject_CallMethod(signals, "is_of_signal_handler", "O", value);
        Py_DECREF(signals);
    }
    PyErr_Clear();
    int is_of_handler = answer == Py_True;
    Py_XDECREF(answer);
    if (is_of_handler) {
        PyErr_Restore(type, value, traceback);
        return 1;
    }
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    return 0;
}

/* repr(object), or a placeholder if a user's __repr__() raises an Exception.  NULL if
   it raises anything else, or if a signal handler does. */
static PyObject *
repr_of(PyObject *object)
{
    PyObject *name = PyObject_Repr(object);
    if (name == NULL && PyErr_ExceptionMatches(PyExc_Exception)
        && !keep_if_of_signal_handler()) {
        name = PyUnicode_FromString("<object without a repr>");
    }
    return name;
}

/* The names of reasons whose text in OpenSSL differs from the name in its header, which
   _ssl uses.  NULL for all others.  The texts of SSL 3.0's alerts begin with "sslv3
   alert" up to 3.1, "ssl/tls alert" up to 3.6 and "tls alert" in 4.0. */
static const char *
header_name(int reason)
{
    switch (reason) {
    case 158: return "AT_LEAST_TLS_1_2_NEEDED_IN_SUITEB_MODE";
    case 330: return "NO_GOST_CERTIFICATE_SENT_BY_PEER";
    case 358: return "MISSING_SRP_PARAM";
    case 361: return "SRP_A_CALC";
    case 380: return "ILLEGAL_SUITEB_DIGEST";
    case 1010: return "SSLV3_ALERT_UNEXPECTED_MESSAGE";
    case 1020: return "SSLV3_ALERT_BAD_RECORD_MAC";
    case 1030: return "SSLV3_ALERT_DECOMPRESSION_FAILURE";
    case 1040: return "SSLV3_ALERT_HANDSHAKE_FAILURE";
    case 1041: return "SSLV3_ALERT_NO_CERTIFICATE";
    case 1042: return "SSLV3_ALERT_BAD_CERTIFICATE";
    case 1043: return "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE";
    case 1044: return "SSLV3_ALERT_CERTIFICATE_REVOKED";
    case 1045: return "SSLV3_ALERT_CERTIFICATE_EXPIRED";
    case 1046: return "SSLV3_ALERT_CERTIFICATE_UNKNOWN";
    case 1047: return "SSLV3_ALERT_ILLEGAL_PARAMETER";
    default: return NULL;
    }
}

/* OpenSSL's text, spelled as _ssl spells it in .reason: "wrong ssl version" becomes
   "WRONG_SSL_VERSION".  None if OpenSSL has no text. */
static PyObject *
name_from_text(const char *text)
{
    char name[128];
    size_t length = text != NULL ? strlen(text) : 0;
    if (length == 0 || length >= sizeof(name)) {
        Py_RETURN_NONE;
    }
    for (size_t i = 0; i <= length; i++) {
        name[i] = text[i] == ' ' ? '_' : (char)Py_TOUPPER(Py_CHARMASK(text[i]));
    }
    return PyUnicode_FromString(name);
}

/* The library's name as _ssl has it.  For a library that _ssl does not name, OpenSSL's
   text. */
static PyObject *
library_name(const struct ku_libssl *libssl, unsigned long error)
{
    static const struct {
        int number;
        const char *name;
    } NAMES[] = {
        {2, "SYS"},           {3, "BN"},    {4, "RSA"},     {5, "DH"},
        {6, "EVP"},           {7, "BUF"},   {9, "PEM"},     {10, "DSA"},
        {11, "X509"},         {13, "ASN1"}, {15, "CRYPTO"}, {16, "EC"},
        {ERR_LIB_SSL, "SSL"}, {32, "BIO"},  {34, "X509V3"}, {36, "RAND"},
        {57, "PROV"},
    };
    int number = ku_error_library(libssl, error);
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        if (NAMES[i].number == number) {
            return PyUnicode_FromString(NAMES[i].name);
        }
    }
    return name_from_text(libssl->ERR_lib_error_string(error));
}

static PyObject *
reason_name(const struct ku_libssl *libssl, unsigned long error)
{
    int is_ssl = ku_error_library(libssl, error) == ERR_LIB_SSL;
    const char *name = is_ssl ? header_name((int)(error & 0xfff)) : NULL;
    return name != NULL ? PyUnicode_FromString(name)
                        : name_from_text(libssl->ERR_reason_error_string(error));
}

/* Is OpenSSL's refusal permanent?  An unknown reason counts as "not now": a limit that
   OpenSSL may add one day (a minimum interval between key updates has been proposed)
   must not make anybody close a working connection. */
static int
is_permanent_reason(int reason)
{
    return reason == SSL_R_WRONG_SSL_VERSION || reason == SSL_R_NO_RENEGOTIATION
           || reason == SSL_R_INVALID_KEY_UPDATE_TYPE || reason == SSL_R_UNINITIALIZED
           || reason == 0;
}

PyObject *
ku_list_refusals(void)
{
    PyObject *refusals = PyList_New(0);
    for (size_t i = 0; refusals != NULL && i < sizeof(REFUSALS) / sizeof(REFUSALS[0]);
         i++) {
        PyObject *pair =
            REFUSALS[i].exception != NULL
                ? Py_BuildValue("sO", REFUSALS[i].exception,
                                REFUSALS[i].duration == NEVER ? Py_True : Py_False)
                : NULL;
        if (pair != NULL && PyList_Append(refusals, pair) < 0) {
            Py_CLEAR(refusals);
        }
        Py_XDECREF(pair);
    }
    return refusals;
}

int
ku_is_for_good(const struct ku_outcome *outcome)
{
    return outcome->refusal == KU_OPENSSL
               ? is_permanent_reason(KU_ERROR_REASON(outcome->error))
               : outcome->refusal < KU_OPENSSL
                     && REFUSALS[outcome->refusal].duration == NEVER;
}

/* An error as the ssl module itself raises it (_ssl.c, fill_and_set_sslerror).
   `number` is args[0]; `error`, which may be 0, gives .library and .reason. */
struct ssl_error {
    PyObject *class; /* raise_ssl() steals the reference */
    int number;
    unsigned long error;
    const char *text;   /* NULL: OpenSSL's text */
    const char *detail; /* appended to the text, or NULL */
};

static PyObject *
ssl_message(const struct ssl_error *failure, const char *openssl_text,
            PyObject *library, PyObject *reason)
{
    const char *text = failure->text != NULL  ? failure->text
                       : openssl_text != NULL ? openssl_text
                                              : "unknown error";
    const char *detail = failure->detail != NULL ? failure->detail : "";
    if (library == Py_None) {
        return PyUnicode_FromFormat("%s%s", text, detail);
    }
    return reason == Py_None
               ? PyUnicode_FromFormat("[%S] %s%s", library, text, detail)
               : PyUnicode_FromFormat("[%S: %S] %s%s", library, reason, text, detail);
}

static PyObject *
new_none(void)
{
    Py_RETURN_NONE;
}

static PyObject *
raise_ssl(ku_state *state, struct ssl_error failure, const char *function,
          PyObject *conn_name)
{
    const struct ku_libssl *libssl = &state->libssl;
    unsigned long error = failure.error;
    const char *openssl_text =
        error != 0 ? libssl->ERR_reason_error_string(error) : NULL;
    PyObject *library = error != 0 ? library_name(libssl, error) : new_none();
    PyObject *reason = error != 0 ? reason_name(libssl, error) : new_none();
    PyObject *message = NULL, *exception = NULL, *where = NULL;
    if (failure.class != NULL && library != NULL && reason != NULL) {
        message = ssl_message(&failure, openssl_text, library, reason);
        where = PyUnicode_FromFormat(" (%s(%U))", function, conn_name);
    }
    if (message != NULL && where != NULL) {
        exception = PyObject_CallFunction(failure.class, "iN", failure.number,
                                          PyUnicode_Concat(message, where));
    }
    if (exception != NULL && PyObject_SetAttrString(exception, "library", library) == 0
        && PyObject_SetAttrString(exception, "reason", reason) == 0) {
        PyErr_SetObject(failure.class, exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(where);
    Py_XDECREF(message);
    Py_XDECREF(reason);
    Py_XDECREF(library);
    Py_XDECREF(failure.class);
    return NULL;
}

static PyObject *
raise_openssl(ku_state *state, unsigned long error, const char *function,
              PyObject *conn_name)
{
    int code = (int)(error & 0xfff);
    PyObject *class =
        exception_class(state, is_permanent_reason(code) ? "RefusedByOpenSSLError"
                                                         : "DeferredByOpenSSLError");
    struct ssl_error failure = {.class = class, .number = code, .error = error};
    if (code == SSL_R_TOO_MANY_KEY_UPDATES) {
        failure.detail = ": OpenSSL wants more time since the last one, or the peer's "
                         "answer to it; the connection is fine, call again later";
    }
    return raise_ssl(state, failure, function, conn_name);
}

/* --- the ssl module's own exceptions ---------------------------------------------- */

/* A class of the ssl module that managed connections derive from.  A program that
   removes ssl from sys.modules and imports it again (tests of a Python without ssl do)
   gets other classes. */
static PyObject *
ssl_class(ku_state *state, const char *name)
{
    return PyObject_GetAttrString(state->ssl, name);
}

/* What is wrong with the certificate, in the ssl module's words. */
static PyObject *
verify_message(ku_state *state, long verify_result, const char *function,
               PyObject *conn)
{
    const char *what = verify_result == X509_V_ERR_HOSTNAME_MISMATCH     ? "Hostname"
                       : verify_result == X509_V_ERR_IP_ADDRESS_MISMATCH ? "IP address"
                                                                         : NULL;
    if (what == NULL) {
        return PyUnicode_FromString(
            state->libssl.X509_verify_cert_error_string(verify_result));
    }
    PyObject *holder = NULL, *name = NULL, *text = NULL;
    PyObject *sslobj = ku_sslobject_search(state, function, conn, &holder);
    if (sslobj != NULL) {
        name = PyObject_GetAttrString(sslobj, "server_hostname");
        Py_DECREF(sslobj);
    }
    Py_XDECREF(holder);
    if (name != NULL) {
        text = PyUnicode_FromFormat("%s mismatch, certificate is not valid for '%S'.",
                                    what, name);
        Py_DECREF(name);
    }
    return text;
}

static PyObject *
raise_unverified(ku_state *state, const struct ku_outcome *outcome,
                 const char *function, PyObject *conn, PyObject *conn_name)
{
    PyObject *text = verify_message(state, outcome->verify_result, function, conn);
    PyObject *detail = text != NULL ? PyUnicode_FromFormat(": %U", text) : NULL;
    const char *utf8 = detail != NULL ? PyUnicode_AsUTF8AndSize(detail, NULL) : NULL;
    if (utf8 == NULL) {
        Py_XDECREF(detail);
        Py_XDECREF(text);
        return NULL;
    }
    raise_ssl(state,
              (struct ssl_error){.class = ssl_class(state, "SSLCertVerificationError"),
                                 .number = SSL_ERROR_SSL,
                                 .error = outcome->error,
                                 .detail = utf8},
              function, conn_name);
    Py_DECREF(detail);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *code = PyLong_FromLong(outcome->verify_result);
    if (code != NULL && text != NULL
        && PyObject_SetAttrString(value, "verify_code", code) == 0
        && PyObject_SetAttrString(value, "verify_message", text) == 0) {
        PyErr_Restore(type, value, traceback);
    }
    else {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
    }
    Py_XDECREF(code);
    Py_XDECREF(text);
    return NULL;
}

static PyObject *
raise_system(int error)
{
#ifdef _WIN32
    return PyErr_SetFromWindowsErr(error);
#else
    errno = error;
    return PyErr_SetFromErrno(PyExc_OSError);
#endif
}

/* OpenSSL 3 reports an end without close_notify with an error of its own, which _ssl
   knows from Python 3.10 on.  OpenSSL 1.1.1 reports SSL_ERROR_SYSCALL without a system
   error. */
static int
is_unexpected_eof(int reason)
{
    return PY_VERSION_HEX >= 0x030a0000 && reason == SSL_R_UNEXPECTED_EOF_WHILE_READING;
}

/* An event loop reads until this is raised, after each record that it receives, and drops
   it.  So it is made quickly, and does not name the connection. */
static PyObject *
raise_want_read(ku_state *state)
{
    PyObject *exception = PyObject_CallObject(state->want_read, state->want_read_args);
    if (exception != NULL
        && PyObject_SetAttr(exception, state->library_name, Py_None) == 0
        && PyObject_SetAttr(exception, state->reason_name, Py_None) == 0) {
        PyErr_SetObject(state->want_read, exception);
    }
    Py_XDECREF(exception);
    return NULL;
}

/* Does what PySSL_SetError() in _ssl.c does. */
static PyObject *
raise_io(ku_state *state, const struct ku_outcome *outcome, const char *function,
         PyObject *conn, PyObject *conn_name)
{
    int reason = KU_ERROR_REASON(outcome->error);
    struct ssl_error failure = {.number = outcome->value, .error = outcome->error};
    const char *class_name = "SSLError";
    if (outcome->value == SSL_ERROR_WANT_WRITE) {
        class_name = "SSLWantWriteError";
        failure.text = "The operation did not complete (write)";
    }
    else if (outcome->value == SSL_ERROR_ZERO_RETURN) {
        class_name = "SSLZeroReturnError";
        failure.text = "TLS/SSL connection has been closed (EOF)";
    }
    else if (outcome->value == PY_SSL_ERROR_NO_SOCKET) {
        failure.number = 0;
        failure.text = "Underlying socket connection gone";
    }
    else if (outcome->system_error != 0 && outcome->value != SSL_ERROR_SSL) {
        return raise_system(outcome->system_error);
    }
    else if (outcome->error == 0 && outcome->detail != NULL) {
        class_name = "SSLSyscallError";
        failure.text = outcome->detail;
    }
    else if (outcome->error == 0 || is_unexpected_eof(reason)) {
        class_name = "SSLEOFError";
        failure.number = PY_SSL_ERROR_EOF;
        failure.text = "EOF occurred in violation of protocol";
    }
    else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        return raise_unverified(state, outcome, function, conn, conn_name);
    }
    else {
        failure.detail = outcome->detail;
    }
    failure.class = ssl_class(state, class_name);
    return raise_ssl(state, failure, function, conn_name);
}

PyObject *
ku_reason(ku_state *state, const struct ku_outcome *outcome)
{
    if (outcome->refusal == KU_OPENSSL) {
        const char *reason = state->libssl.ERR_reason_error_string(outcome->error);
        return PyUnicode_FromFormat("OpenSSL refuses: %s",
                                    reason != NULL ? reason : "unknown error");
    }
    const char *text = REFUSALS[outcome->refusal].text;
    return outcome->detail != NULL ? PyUnicode_FromFormat(text, outcome->detail)
                                   : PyUnicode_FromString(text);
}

/* A PeerLimitError or RekeyImpossibleError, which has a word for the limit or the
   reason.  As a subclass of ssl.SSLError it takes a number and a text. */
static PyObject *
raise_with_word(ku_state *state, const char *class_name, PyObject *message,
                const char *attribute, const char *word)
{
    PyObject *class = message != NULL ? exception_class(state, class_name) : NULL;
    PyObject *name = class != NULL ? PyUnicode_FromString(word) : NULL;
    PyObject *exception =
        name != NULL ? PyObject_CallFunction(class, "iO", SSL_ERROR_SSL, message)
                     : NULL;
    if (exception != NULL && PyObject_SetAttrString(exception, attribute, name) == 0) {
        PyErr_SetObject(class, exception);
    }
    Py_XDECREF(exception);
    Py_XDECREF(name);
    Py_XDECREF(class);
    Py_XDECREF(message);
    return NULL;
}

static PyObject *
raise_refusal(ku_state *state, const struct ku_outcome *outcome, const char *function,
              PyObject *conn_name)
{
    PyObject *reason = ku_reason(state, outcome);
    PyObject *message = NULL;
    if (reason != NULL) {
        message = PyUnicode_FromFormat("%s(%U): %U", function, conn_name, reason);
        Py_DECREF(reason);
    }
    const char *class_name = REFUSALS[outcome->refusal].exception;
    return outcome->refusal == KU_PEER_LIMIT
               ? raise_with_word(state, class_name, message, "limit", outcome->detail)
           : outcome->refusal == KU_KEY_TOO_OLD
               ? raise_with_word(state, class_name, message, "reason", "ended")
               : raise_class(state, class_name, message);
}

PyObject *
ku_raise(ku_state *state, const struct ku_outcome *outcome, const char *function,
         PyObject *conn)
{
    if (outcome->refusal == KU_IO && outcome->value == SSL_ERROR_WANT_READ) {
        return raise_want_read(state);
    }
    PyObject *conn_name = repr_of(conn);
    if (conn_name == NULL) {
        return NULL;
    }
    if (outcome->refusal == KU_OPENSSL) {
        raise_openssl(state, outcome->error, function, conn_name);
    }
    else if (outcome->refusal == KU_IO) {
        raise_io(state, outcome, function, conn, conn_name);
    }
    else {
        raise_refusal(state, outcome, function, conn_name);
    }
    Py_DECREF(conn_name);
    return NULL;
}

PyObject *
ku_raise_refusal(ku_state *state, enum ku_refusal refusal, const char *function,
                 PyObject *conn)
{
    struct ku_outcome outcome = {.refusal = refusal};
    return ku_raise(state, &outcome, function, conn);
}

PyObject *
ku_refuse_type(ku_state *state, const char *function, PyObject *conn,
               PyObject *update_type)
{
    PyObject *conn_name = repr_of(conn);
    PyObject *value = conn_name != NULL ? repr_of(update_type) : NULL;
    if (value == NULL) {
        Py_XDECREF(conn_name);
        return NULL;
    }
    PyObject *message = PyUnicode_FromFormat(
        "%s(%U): update_type must be KeyUpdateType.NOT_REQUESTED (0) or "
        "KeyUpdateType.REQUESTED (1), not %U",
        function, conn_name, value);
    Py_DECREF(value);
    Py_DECREF(conn_name);
    return raise_class(state, "InvalidKeyUpdateTypeError", message);
}

/* --- chaining exceptions ---------------------------------------------------------- */

void
ku_chain_exception(PyObject *type, PyObject *value, PyObject *traceback)
{
    PyObject *last_type, *last, *last_traceback;
    PyErr_Fetch(&last_type, &last, &last_traceback);
    PyErr_NormalizeException(&last_type, &last, &last_traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL) {
        (void)PyException_SetTraceback(value, traceback);
    }
    if (last != value) {
        PyException_SetContext(last, value);
    }
    else {
        Py_DECREF(value);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    PyErr_Restore(last_type, last, last_traceback);
}

void
ku_restore_exception(PyObject *type, PyObject *value, PyObject *traceback)
{
    PyObject *now_type, *now, *now_traceback;
    if (type == NULL) {
        return;
    }
    PyErr_Fetch(&now_type, &now, &now_traceback);
    PyErr_Restore(type, value, traceback);
    if (now_type != NULL) {
        ku_chain_exception(now_type, now, now_traceback);
    }
}
