/* What rekey(), flush() and request_client_certificate() need from OpenSSL beyond
   the controls: what has still to be sent, one pass of a handshake, and a request
   for the client's certificate.

   These are the package's own (pykeyupdate/performing.py calls them); a program
   has no use for them.  file:line are OpenSSL 3.5.7's. */
#include "handshake.h"

#include "controls.h"
#include "managed.h"
#include "record.h"

#ifdef _WIN32
#  include <windows.h>
#else
#  include <errno.h>
#endif
#include <string.h>

/* Constants of OpenSSL's public headers, the same from 1.1.1 to 4.0. */
#define SSL_ERROR_NONE 0
#define SSL_ERROR_WANT_READ 2
#define SSL_ERROR_WANT_WRITE 3
#define SSL_VERIFY_PEER 1
#define SSL_VERIFY_POST_HANDSHAKE 8
#define SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION ((uint64_t)1 << 16)
#define SSL_R_EXTENSION_NOT_RECEIVED 279
#define SSL_R_REQUEST_PENDING 285
#define SSL_R_REQUEST_SENT 286

/* Of what kind is it, what this side has to send?  As in performing.py: nothing; a
   key update, scheduled or half sent; the answer to one that the peer requested;
   a renegotiation; one of which a message is half sent; another post-handshake
   message (TLS 1.3), half sent. */
enum {
    NOTHING,
    KEY_UPDATE,
    ANSWER,
    RENEGOTIATION,
    RENEGOTIATION_UNSENT,
    OTHER_MESSAGE,
};

/* --- what is to be sent --------------------------------------------------- */

/* The type is forgotten when the message is built; of one that is half sent the
   state's name tells which it is (ssl_stat.c: TWCKU, TWSKU).  In init without
   either is the middle of a received message: that is the peer's to finish. */
static int
half_sent(const struct ku_libssl *libssl, SSL *ssl)
{
    if (libssl->SSL_want(ssl) != SSL_WRITING) {
        return NOTHING;
    }
    const char *state = libssl->SSL_state_string(ssl);
    return strcmp(state, "TWCKU") == 0 || strcmp(state, "TWSKU") == 0
               ? KEY_UPDATE
               : OTHER_MESSAGE;
}

static struct ku_outcome
tls13_to_send(const struct ku_libssl *libssl, SSL *ssl)
{
    int pending = ku_pending_key_update(libssl, ssl);
    if (!libssl->SSL_is_init_finished(ssl)) {
        return ku_ok(pending != SSL_KEY_UPDATE_NONE ? KEY_UPDATE
                                                    : half_sent(libssl, ssl));
    }
    return ku_ok(pending != SSL_KEY_UPDATE_NONE ? ANSWER : NOTHING);
}

static struct ku_outcome
to_send_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    enum ku_refusal refusal = ku_connection_state(libssl, ssl);
    if (refusal != KU_OK) {
        return ku_refused(refusal);
    }
    if (libssl->SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN) {
        return ku_ok(NOTHING);  /* nothing may follow a close_notify */
    }
    if (libssl->SSL_version(ssl) == TLS1_3_VERSION) {
        return tls13_to_send(libssl, ssl);
    }
    if (!libssl->SSL_is_init_finished(ssl)) {
        return ku_ok(libssl->SSL_want(ssl) == SSL_WRITING ? RENEGOTIATION_UNSENT
                                                          : RENEGOTIATION);
    }
    return ku_ok(ku_renegotiates(libssl, ssl) ? RENEGOTIATION : NOTHING);
}

/* Has received data not been read?  While that is so, a server's HelloRequest is
   not sent (ssl3_renegotiate_check(), s3_lib.c). */
static struct ku_outcome
has_unread_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    return ku_ok(libssl->SSL_has_pending(ssl) != 0);
}

/* --- one pass of a handshake ---------------------------------------------- */

/* What a failing socket leaves; Winsock's is Windows' last error. */
#ifdef _WIN32
static void set_system_error(int number) { SetLastError((DWORD)number); }
static int system_error(void) { return (int)GetLastError(); }
#else
static void set_system_error(int number) { errno = number; }
static int system_error(void) { return errno; }
#endif

/* SSL_peek() drives a handshake as SSL_read() does, past application data that
   SSL_do_handshake() and SSL_write() die of (UNEXPECTED_RECORD, rec_layer_s3.c),
   and leaves that data for the next SSL_read().  The caller has made the socket
   one that does not block, so this is bounded by the cryptography of one flight;
   the GIL is kept, as nobody else may be in this connection meanwhile. */
static struct ku_outcome
advance_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    enum ku_refusal refusal = ku_connection_state(libssl, ssl);
    if (refusal != KU_OK) {
        return ku_refused(refusal);
    }
    char first;
    libssl->ERR_clear_error();
    set_system_error(0);
    int got = libssl->SSL_peek(ssl, &first, 1);
    struct ku_outcome outcome = {.refusal = KU_IO};
    outcome.system_error = system_error();
    outcome.value = libssl->SSL_get_error(ssl, got);
    outcome.error = libssl->ERR_peek_last_error();
    outcome.verify_result = libssl->SSL_get_verify_result(ssl);
    libssl->ERR_clear_error();
    const struct ku_record *record = ku_record_of(ssl);
    if (record != NULL && record->why_cut != NULL && got <= 0) {
        return ku_refused_because(KU_PEER_TOO_MUCH, record->why_cut);
    }
    if (outcome.value == SSL_ERROR_NONE || outcome.value == SSL_ERROR_WANT_READ
        || outcome.value == SSL_ERROR_WANT_WRITE) {
        return ku_ok(outcome.value);
    }
    return outcome;
}

/* A number that is another one after each handshake (and each post-handshake
   authentication) with the peer: an FNV-1a hash of its last Finished message,
   which OpenSSL keeps.  Nothing but "the same or not" is made of it. */
static struct ku_outcome
peer_finished_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    unsigned char finished[64];  /* EVP_MAX_MD_SIZE */
    size_t length = libssl->SSL_get_peer_finished(ssl, finished, sizeof(finished));
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < length && i < sizeof(finished); i++) {
        hash = (hash ^ finished[i]) * 16777619u;
    }
    return ku_ok((int)(hash & 0x7fffffff));
}

/* --- a request for the client's certificate --------------------------------- */

static struct ku_outcome
may_authenticate(const struct ku_libssl *libssl, SSL *ssl)
{
    enum ku_refusal refusal = ku_connection_state(libssl, ssl);
    if (refusal == KU_OK && libssl->SSL_version(ssl) != TLS1_3_VERSION) {
        return ku_may_renegotiate(libssl, ssl);
    }
    if (refusal == KU_OK
        && (libssl->SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN)) {
        refusal = KU_CLOSE_SENT;
    }
    if (refusal == KU_OK && !libssl->SSL_is_init_finished(ssl)) {
        refusal = KU_IN_MESSAGE;
    }
    if (refusal == KU_OK && libssl->SSL_want(ssl) == SSL_WRITING) {
        refusal = KU_WRITE_PENDING;
    }
    return ku_refused(refusal);
}

/* TLS 1.3: post-handshake authentication (RFC 9846 4.7.2). */
static struct ku_outcome
schedule_authentication(const struct ku_libssl *libssl, SSL *ssl)
{
    if (libssl->SSL_verify_client_post_handshake == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_verify_client_post_handshake");
    }
    struct ku_outcome outcome = ku_scheduled(
        libssl, libssl->SSL_verify_client_post_handshake(ssl));
    switch (outcome.error & 0xfff) {
    case SSL_R_EXTENSION_NOT_RECEIVED:
        return ku_refused(KU_NO_PHA);
    case SSL_R_REQUEST_PENDING:
    case SSL_R_REQUEST_SENT:
        return ku_refused(KU_CERTIFICATE_REQUESTED);
    default:
        return outcome;
    }
}

/* The certificate is asked for whatever the context says; that the client may go
   without one, or not, stays as the context has it (FAIL_IF_NO_PEER_CERT).
   SSL_set_verify() without a callback keeps the one that is set (ssl_lib.c).
   TLS 1.2: a session that was resumed would carry no certificate. */
static struct ku_outcome
request_certificate_step(const struct ku_libssl *libssl, SSL *ssl, intptr_t ignored)
{
    (void)ignored;
    if (!libssl->SSL_is_server(ssl)) {
        return ku_refused(KU_NOT_SERVER);
    }
    struct ku_outcome may = may_authenticate(libssl, ssl);
    if (may.refusal != KU_OK) {
        return may;
    }
    if (libssl->SSL_has_pending(ssl)) {
        return ku_refused(KU_UNREAD);
    }
    int mode = libssl->SSL_get_verify_mode(ssl);
    int tls13 = libssl->SSL_version(ssl) == TLS1_3_VERSION;
    libssl->ERR_clear_error();
    libssl->SSL_set_verify(
        ssl, mode | SSL_VERIFY_PEER | (tls13 ? SSL_VERIFY_POST_HANDSHAKE : 0), NULL);
    struct ku_outcome outcome;
    if (tls13) {
        outcome = schedule_authentication(libssl, ssl);
    }
    else if (libssl->SSL_renegotiate == NULL) {
        outcome = ku_refused_because(KU_MISSING, "SSL_renegotiate");
    }
    else {
        libssl->SSL_set_options(ssl, SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION);
        outcome = ku_scheduled(libssl, libssl->SSL_renegotiate(ssl));
    }
    if (outcome.refusal != KU_OK) {
        libssl->SSL_set_verify(ssl, mode, NULL);
    }
    return outcome;
}

/* --- as Python sees them -------------------------------------------------- */

typedef int (*taker)(ku_state *, const char *, PyObject *, ku_step, intptr_t, int *);

static PyObject *
stepped(PyObject *module, PyObject *args, taker take, ku_step step)
{
    PyObject *conn;
    const char *function;
    int value;
    ku_state *state = PyModule_GetState(module);
    if (!PyArg_ParseTuple(args, "Os", &conn, &function)) {
        return NULL;
    }
    int result = take(state, function, conn, step, 0, &value);
    ku_managed_tell_of(state, conn);
    return result == 0 ? PyLong_FromLong(value) : NULL;
}

#define KU_FUNCTION(name, take)                           \
    static PyObject *py_##name(PyObject *module, PyObject *args) \
    {                                                     \
        return stepped(module, args, take, name##_step);  \
    }
KU_FUNCTION(to_send, ku_take_step)
KU_FUNCTION(has_unread, ku_take_quiet_step)
KU_FUNCTION(advance, ku_take_step)
KU_FUNCTION(peer_finished, ku_take_step)
KU_FUNCTION(request_certificate, ku_take_quiet_step)
#undef KU_FUNCTION

/* Each takes the connection and the name that errors give as the caller's. */
#define KU_ENTRY(name, doc) \
    {#name, py_##name, METH_VARARGS, #name "($module, conn, function, /)\n--\n\n" doc}

PyMethodDef ku_handshake[] = {
    KU_ENTRY(to_send, "Return which kind of message is to be sent, 0 for none."),
    KU_ENTRY(has_unread, "Return whether received data has not been read."),
    KU_ENTRY(advance,
             "Take a handshake as far as it goes by reading ahead, without "
             "blocking;\nreturn ssl.SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE or, "
             "where data can be\nread, 0."),
    KU_ENTRY(peer_finished,
             "Return a number that is another one after each handshake."),
    KU_ENTRY(request_certificate,
             "Schedule a request for the client's certificate."),
    {NULL, NULL, 0, NULL},
};
