#include "openssl/states.h"

#include "openssl/constants.h"
#include "openssl/sslobject.h"
#include "system/mutex.h"

#include <string.h>

static const struct {
    const char *name;
    enum ku_tls_state state;
} STATES[] = {
    {"PINIT", KU_STATE_BEFORE},
    {"SSLOK", KU_STATE_READY},
    {"SSLERR", KU_STATE_FAILED},
    {"TWCKU", KU_STATE_SENT_KEY_UPDATE}, /* written by a client */
    {"TWSKU", KU_STATE_SENT_KEY_UPDATE}, /* written by a server */
    {"TRCKU", KU_STATE_READ_KEY_UPDATE}, /* read from a client */
    {"TRSKU", KU_STATE_READ_KEY_UPDATE}, /* read from a server */
};

/* Is it this name?  Names of five letters end in a blank ("SSLOK "), or did once. */
static int
is_named(const char *state, const char *name)
{
    size_t length = strlen(name);
    return strncmp(state, name, length) == 0
           && (state[length] == '\0' || strcmp(state + length, " ") == 0);
}

enum ku_tls_state
ku_tls_state(const struct ku_tls *tls)
{
    const char *name = tls->libssl->SSL_state_string(tls->ssl);
    for (size_t i = 0; i < sizeof(STATES) / sizeof(STATES[0]); i++) {
        if (is_named(name, STATES[i].name)) {
            return STATES[i].state;
        }
    }
    return KU_STATE_OTHER;
}

/* --- the proof of the names ------------------------------------------------------- */

enum { CLIENT, SERVER };

/* OpenSSL passes the callbacks below nothing but the SSL.  These are what else they
   need, for one proof at a time. */
static ku_mutex proof_lock = KU_MUTEX_INITIALIZER;
static const struct ku_libssl *proof_libssl;
static SSL *proof_sides[2];
static unsigned int states_seen[2]; /* bits of enum ku_tls_state */

static enum ku_tls_state
state_of_side(int side)
{
    const struct ku_tls tls = {.libssl = proof_libssl, .ssl = proof_sides[side]};
    return ku_tls_state(&tls);
}

static void
note_state_seen(const SSL *ssl, int where, int value)
{
    (void)where, (void)value;
    int side = ssl == proof_sides[SERVER] ? SERVER : CLIENT;
    states_seen[side] |= 1u << state_of_side(side);
}

/* A pre-shared key, so that neither side needs a certificate.  It comes with a cipher
   suite, the one that every TLS 1.3 has (RFC 9846 section 9.1).  The client offers no
   other suite, because the server chooses one before it looks at the key.  The caller
   owns the session. */
static SSL_SESSION *
make_psk_session(SSL *ssl)
{
    static const unsigned char suite[2] = {0x13, 0x01}, key[32] = {1};
    const struct ku_libssl *libssl = proof_libssl;
    const SSL_CIPHER *cipher = libssl->SSL_CIPHER_find(ssl, suite);
    SSL_SESSION *session = cipher != NULL ? libssl->SSL_SESSION_new() : NULL;
    if (session != NULL
        && (!libssl->SSL_SESSION_set1_master_key(session, key, sizeof(key))
            || !libssl->SSL_SESSION_set_cipher(session, cipher)
            || !libssl->SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION))) {
        libssl->SSL_SESSION_free(session);
        session = NULL;
    }
    return session;
}

static int
offer_psk(SSL *ssl, const void *digest, const unsigned char **identity, size_t *length,
          SSL_SESSION **session)
{
    (void)digest;
    *identity = (const unsigned char *)"pykeyupdate";
    *length = 11;
    *session = make_psk_session(ssl);
    return *session != NULL;
}

static int
accept_psk(SSL *ssl, const unsigned char *identity, size_t length,
           SSL_SESSION **session)
{
    (void)identity, (void)length;
    *session = make_psk_session(ssl);
    return *session != NULL;
}

static int
shake_hands(void)
{
    int done[2] = {0, 0};
    SSL *client = proof_sides[CLIENT];
    (void)proof_libssl->SSL_set_ciphersuites(client, "TLS_AES_128_GCM_SHA256");
    (void)proof_libssl->SSL_set_session_id_context(client, NULL, 0); /* as the PSK's */
    proof_libssl->SSL_set_psk_use_session_callback(client, offer_psk);
    proof_libssl->SSL_set_psk_find_session_callback(proof_sides[SERVER], accept_psk);
    for (int i = 0; i < 3; i++) {
        for (int side = CLIENT; side <= SERVER; side++) {
            done[side] = proof_libssl->SSL_do_handshake(proof_sides[side]) == 1;
        }
    }
    return done[CLIENT] && done[SERVER]
           && proof_libssl->SSL_version(client) == TLS1_3_VERSION;
}

/* Send one byte from one side to the other, behind a KeyUpdate that is scheduled or
   owed. */
static void
send_byte(int from, int to)
{
    char byte = 0;
    size_t n;
    (void)proof_libssl->SSL_write_ex(proof_sides[from], &byte, 1, &n);
    (void)proof_libssl->SSL_read_ex(proof_sides[to], &byte, 1, &n);
}

/* The client requests a key update, and the server answers it.  Returns 1 if both sides
   passed through both states. */
static int
update_names_hold(void)
{
    const unsigned int both =
        1u << KU_STATE_SENT_KEY_UPDATE | 1u << KU_STATE_READ_KEY_UPDATE;
    states_seen[CLIENT] = states_seen[SERVER] = 0;
    for (int side = CLIENT; side <= SERVER; side++) {
        proof_libssl->SSL_set_info_callback(proof_sides[side], note_state_seen);
    }
    (void)proof_libssl->SSL_key_update(proof_sides[CLIENT], SSL_KEY_UPDATE_REQUESTED);
    send_byte(CLIENT, SERVER);
    send_byte(SERVER, CLIENT);
    return (states_seen[CLIENT] & both) == both && (states_seen[SERVER] & both) == both;
}

enum proof { NOT_PROVED = -1, REFUTED, PROVED };

/* Check the names before the handshake, after it, during the key updates, and after one
   side received what is not TLS. */
static enum proof
prove_names(void)
{
    int hold = state_of_side(CLIENT) == KU_STATE_BEFORE
               && state_of_side(SERVER) == KU_STATE_BEFORE;
    if (proof_libssl->SSL_key_update == NULL || !shake_hands()) {
        return NOT_PROVED;
    }
    hold = hold && state_of_side(CLIENT) == KU_STATE_READY
           && state_of_side(SERVER) == KU_STATE_READY && update_names_hold();
    BIO *bio = proof_libssl->SSL_get_wbio(proof_sides[SERVER]);
    (void)proof_libssl->BIO_write(bio, "this is no TLS at all", 21);
    send_byte(SERVER, CLIENT);
    return hold && state_of_side(CLIENT) == KU_STATE_FAILED ? PROVED : REFUTED;
}

/* Two _ssl connections, a client and a server, each writing to the MemoryBIO that the
   other reads.  A new tuple, or NULL with an exception. */
static PyObject *
make_pair(PyObject *_ssl)
{
    static const int PROTOCOLS[2] = {PY_PROTOCOL_TLS_CLIENT, PY_PROTOCOL_TLS_SERVER};
    PyObject *bios[2], *pair[2] = {NULL, NULL};
    bios[0] = PyObject_CallMethod(_ssl, "MemoryBIO", NULL);
    bios[1] = PyObject_CallMethod(_ssl, "MemoryBIO", NULL);
    for (int side = CLIENT; side <= SERVER && bios[0] != NULL && bios[1] != NULL;
         side++) {
        PyObject *context =
            PyObject_CallMethod(_ssl, "_SSLContext", "i", PROTOCOLS[side]);
        if (context != NULL) {
            pair[side] = PyObject_CallMethod(context, "_wrap_bio", "OOi", bios[side],
                                             bios[!side], side);
            Py_DECREF(context);
        }
    }
    Py_XDECREF(bios[0]);
    Py_XDECREF(bios[1]);
    return Py_BuildValue("NN", pair[0], pair[1]);
}

int
ku_states_prove(ku_state *state, PyObject *_ssl)
{
    enum proof proof = NOT_PROVED;
    PyObject *pair = make_pair(_ssl);
    if (pair == NULL) {
        return -1;
    }
    ku_mutex_lock(&proof_lock);
    proof_libssl = &state->libssl;
    for (int side = CLIENT; side <= SERVER; side++) {
        proof_sides[side] = ku_sslobject_ssl(state, PyTuple_GetItem(pair, side));
    }
    if (proof_sides[CLIENT] != NULL && proof_sides[SERVER] != NULL) {
        proof = prove_names();
    }
    state->libssl.ERR_clear_error();
    ku_mutex_unlock(&proof_lock);
    Py_DECREF(pair);
    if (proof == REFUTED) {
        PyErr_SetString(
            PyExc_ImportError,
            "pykeyupdate cannot work here: this OpenSSL names the states of a "
            "connection otherwise than 1.1.1 to 4.0 do, so what happens on it cannot "
            "be told. Look for a newer pykeyupdate, or report it with the output of "
            "`python -m pykeyupdate doctor`.");
        return -1;
    }
    return proof == PROVED;
}
