/* Binds to the one libssl that may touch _ssl's SSL*.

   Another libssl in the process, of any version, has its own idea of struct ssl_st:
   calling it with _ssl's pointer corrupts memory.  So we link to none.  We start from
   the address of a C function of _ssl, ask the loader which library _ssl itself is
   bound to (locate_*.c), and take every function from that library or not at all: no
   RTLD_DEFAULT, no search by name, no fallback. */
#include "openssl/libssl.h"

#include "openssl/constants.h"
#include "openssl/locate.h"

#include <string.h>

#ifdef __linux__
#  include <stdio.h>
#  include <sys/utsname.h>
#endif

static const char HIDDEN_REMEDY[] =
    "OpenSSL is linked statically into this interpreter and its functions are "
    "hidden, so nothing but its own ssl module can reach them. Interpreters "
    "from python-build-standalone (uv, hatch, mise, pdm, rye, Bazel) are built so; "
    "on Linux pykeyupdate finds the functions by the symbol table of the "
    "interpreter's file, unless that was stripped with more than --strip-debug. Use an "
    "interpreter that has this table, or one that links OpenSSL dynamically: your "
    "system's, python.org's, pyenv's, conda's or the python:* images'; with uv, "
    "`uv venv --no-managed-python`.";

static const char LIBRESSL_REMEDY[] =
    "this interpreter's ssl module uses LibreSSL, which has no TLS 1.3 key "
    "update. Use an interpreter built with OpenSSL 1.1.1 or newer (on macOS: "
    "python.org's or Homebrew's, not the one in /usr/bin).";

static const char TOO_OLD_REMEDY[] =
    "this interpreter's ssl module uses a TLS library older than OpenSSL 1.1.1, "
    "or one without functions that every OpenSSL has. Use an interpreter built "
    "with OpenSSL 1.1.1 or newer. (In the sources: ext/openssl/libssl.h has the "
    "functions.)";

static const char NOT_CPYTHON_REMEDY[] =
    "this interpreter's ssl module is not CPython's C extension, so its "
    "connections hold no OpenSSL SSL*. pykeyupdate works on CPython only. (In the "
    "sources: ext/openssl/libssl.c, anchor_of().)";

static const char NOT_LOADED_REMEDY[] =
    "the dynamic loader does not know the library that this interpreter's ssl "
    "module calls. Please report it with the output of "
    "`python -m pykeyupdate doctor`. (In the sources: ext/openssl/locate_*.c.)";

static const char MISMATCH_REMEDY[] =
    "the OpenSSL that was found is not the version that the ssl module reports, "
    "so it is not the one it uses. Please report it with the output of "
    "`python -m pykeyupdate doctor`. (In the sources: ext/openssl/locate_*.c.)";

static void *
cannot_work(const char *remedy)
{
    PyErr_Format(PyExc_ImportError, "pykeyupdate cannot work here: %s", remedy);
    return NULL;
}

/* OpenSSL is hidden in this image, and `why` there is no other way to it. */
static void *
cannot_find_hidden(const struct ku_image *image, const char *why)
{
    PyErr_Format(PyExc_ImportError,
                 "pykeyupdate cannot work here: %s (Looked into %s: %s.)",
                 HIDDEN_REMEDY, image->path, why);
    return NULL;
}

/* The address of a C function of _ssl.  We do not use _ssl.__file__: a built-in _ssl
   has none, and the file need not be the object that was loaded. */
static void *
anchor_of(PyObject *_ssl)
{
    PyObject *function = PyObject_GetAttrString(_ssl, "RAND_status");
    void *anchor = NULL;
    if (function != NULL && PyCFunction_Check(function)) {
        anchor = (void *)(uintptr_t)PyCFunction_GetFunction(function);
    }
    Py_XDECREF(function);
    if (anchor == NULL) {
        PyErr_Clear();
        return cannot_work(NOT_CPYTHON_REMEDY);
    }
    return anchor;
}

static int
locate_library(struct ku_image *image, void *anchor, const char *imported)
{
    memset(image, 0, sizeof(*image));
    switch (ku_locate(image, anchor, imported)) {
    case KU_LOCATED: return 0;
    case KU_LOCATED_HIDDEN: (void)cannot_work(HIDDEN_REMEDY); return -1;
    case KU_LOCATED_NOT_LOADED: break;
    }
    (void)cannot_work(NOT_LOADED_REMEDY);
    return -1;
}

/* OpenSSL 3.2 added rekeying of kernel TLS.  If the kernel lacks it (Linux has it since
   6.14), the connection fails *after* the KeyUpdate message has been sent.  Older
   OpenSSLs leave the kernel on the old key. */
static int
ktls_can_rekey(unsigned long version)
{
#ifdef __linux__
    struct utsname kernel;
    unsigned int major = 0, minor = 0;
    return version >= OPENSSL_3_2_0 && uname(&kernel) == 0
           && sscanf(kernel.release, "%u.%u", &major, &minor) == 2
           && (major > 6 || (major == 6 && minor >= 14));
#else
    (void)version;
    return 0;
#endif
}

/* Does _ssl report the version that we bound?  The text has the day of the release, too,
   and often who built it. */
static int
same_version(const struct ku_libssl *libssl, PyObject *_ssl)
{
    PyObject *number = PyObject_GetAttrString(_ssl, "OPENSSL_VERSION_NUMBER");
    PyObject *text =
        number != NULL ? PyObject_GetAttrString(_ssl, "OPENSSL_VERSION") : NULL;
    int same =
        text != NULL && PyLong_Check(number) && PyUnicode_Check(text)
        && PyLong_AsUnsignedLong(number) == libssl->version
        && PyUnicode_CompareWithASCIIString(text, libssl->OpenSSL_version(0)) == 0;
    PyErr_Clear();
    Py_XDECREF(number);
    Py_XDECREF(text);
    return same;
}

/* The names of all functions in the order of struct ku_libssl, and how many there are of
   each kind. */
#define KU_NAME(result, name, arguments) {#name, NULL},
#define KU_COUNT(result, name, arguments) +1
enum {
    N_CONTROLS = 0 KU_CONTROLS(KU_COUNT),
    N_OPTIONAL = 0 KU_OPTIONAL(KU_COUNT),
    N_SSL = N_OPTIONAL KU_REQUIRED(KU_COUNT),
    N_ALL = N_SSL KU_CRYPTO(KU_COUNT),
};
static const struct ku_function NAMES[N_ALL] = {KU_FUNCTIONS(KU_NAME)};
#undef KU_NAME
#undef KU_COUNT

/* Find all functions: in one go if one object holds both libraries.  Returns NULL, or
   why nothing can be found. */
static const char *
locate_functions(struct ku_function *functions, const struct ku_image *ssl,
                 const struct ku_image *crypto)
{
    if (ssl->base == crypto->base) {
        return ku_locate_functions(ssl, functions, N_ALL);
    }
    const char *failure = ku_locate_functions(ssl, functions, N_SSL);
    return failure != NULL
               ? failure
               : ku_locate_functions(crypto, functions + N_SSL, N_ALL - N_SSL);
}

/* ISO C has no cast from void * to a function pointer, but POSIX and Windows promise
   that both have the same representation. */
static void
fill_table(struct ku_libssl *libssl, const struct ku_function *functions)
{
#define KU_TAKE(result, name, arguments)                                               \
    memcpy(&libssl->name, &functions++->address, sizeof(libssl->name));
    KU_FUNCTIONS(KU_TAKE)
#undef KU_TAKE
}

/* The first function without which nothing works that this library lacks, or NULL. */
static const char *
missing_function(const struct ku_libssl *libssl, const struct ku_function *functions)
{
    for (size_t i = N_OPTIONAL; i < N_ALL; i++) {
        if (functions[i].address == NULL) {
            return functions[i].name;
        }
    }
    return libssl->SSL_state_string != NULL
                   || (libssl->SSL_get_state != NULL
                       && libssl->ossl_statem_in_error != NULL)
               ? NULL
               : "SSL_state_string";
}

static int
check_functions(const struct ku_libssl *libssl, const struct ku_function *functions)
{
    const char *missing = missing_function(libssl, functions);
    if (libssl->OpenSSL_version != NULL
        && strncmp(libssl->OpenSSL_version(0), "LibreSSL", 8) == 0) {
        (void)cannot_work(LIBRESSL_REMEDY);
        return -1;
    }
    if (missing != NULL) {
        PyErr_Format(PyExc_ImportError,
                     "pykeyupdate cannot work here: %s (It has no %s().)",
                     TOO_OLD_REMEDY, missing);
        return -1;
    }
    if (libssl->OpenSSL_version_num() < OPENSSL_1_1_1) {
        (void)cannot_work(TOO_OLD_REMEDY);
        return -1;
    }
    return 0;
}

/* A new list of the names of the controls that do not exist. */
static PyObject *
missing_controls(const struct ku_function *functions)
{
    PyObject *missing = PyList_New(0);
    for (size_t i = 0; missing != NULL && i < N_CONTROLS; i++) {
        if (functions[i].address == NULL) {
            PyObject *name = PyUnicode_FromString(functions[i].name);
            if (name == NULL || PyList_Append(missing, name) < 0) {
                Py_CLEAR(missing);
            }
            Py_XDECREF(name);
        }
    }
    return missing;
}

/* A new dict that describes what was bound.  The path is in the file system's encoding,
   decoded as os.fsdecode() does. */
static PyObject *
describe_library(const struct ku_libssl *libssl, const struct ku_image *ssl,
                 PyObject *missing)
{
    PyObject *path = PyUnicode_DecodeFSDefault(ssl->path);
    if (path == NULL) {
        return NULL;
    }
    PyObject *found = Py_BuildValue(
        "{s:N,s:s,s:s,s:k,s:O,s:O}", "path", path, "found_by", ssl->how, "version",
        libssl->OpenSSL_version(0), "version_number", libssl->version, "missing",
        missing, "ktls_can_rekey", libssl->ktls_can_rekey ? Py_True : Py_False);
    return found;
}

PyObject *
ku_libssl_addresses(const struct ku_libssl *libssl)
{
    PyObject *addresses = PyDict_New();
    void *address;
#define KU_ADD(result, name, arguments)                                                \
    memcpy(&address, &libssl->name, sizeof(address));                                  \
    if (addresses != NULL) {                                                           \
        PyObject *number = PyLong_FromVoidPtr(address);                                \
        if (number == NULL || PyDict_SetItemString(addresses, #name, number) < 0) {    \
            Py_CLEAR(addresses);                                                       \
        }                                                                              \
        Py_XDECREF(number);                                                            \
    }
    KU_FUNCTIONS(KU_ADD)
#undef KU_ADD
    return addresses;
}

PyObject *
ku_libssl_bind(struct ku_libssl *libssl, PyObject *_ssl)
{
    struct ku_image ssl, crypto;
    struct ku_function functions[N_ALL];
    void *anchor = anchor_of(_ssl);
    /* Every _ssl from 3.9 to 3.15 calls these two functions when it makes a connection
       (newPySSLSocket), so even a lazily bound slot is resolved by now. */
    if (anchor == NULL || locate_library(&ssl, anchor, "SSL_set_ex_data") < 0
        || locate_library(&crypto, anchor, "ERR_clear_error") < 0) {
        return NULL;
    }
    memcpy(functions, NAMES, sizeof(functions));
    const char *failure = locate_functions(functions, &ssl, &crypto);
    if (failure != NULL) {
        return cannot_find_hidden(&ssl, failure);
    }
    fill_table(libssl, functions);
    if (check_functions(libssl, functions) < 0) {
        return NULL;
    }
    libssl->version = libssl->OpenSSL_version_num();
    libssl->ktls_can_rekey = ktls_can_rekey(libssl->version);
    if (!same_version(libssl, _ssl)) {
        return cannot_work(MISMATCH_REMEDY);
    }
    PyObject *missing = missing_controls(functions);
    if (missing == NULL) {
        return NULL;
    }
    PyObject *found = describe_library(libssl, &ssl, missing);
    Py_DECREF(missing);
    return found;
}
