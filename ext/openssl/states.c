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
    {"TRST", KU_STATE_READ_TICKET},
    {"TWCH", KU_STATE_SENT_HELLO},
};

/* Is it this name?  Names of five letters end in a blank ("SSLOK "), or did once. */
static int
is_named(const char *state, const char *name)
{
    size_t length = strlen(name);
    return strncmp(state, name, length) == 0
           && (state[length] == '\0' || strcmp(state + length, " ") == 0);
}

static enum ku_tls_state
state_by_name(const struct ku_tls *tls)
{
    const char *name = tls->libssl->SSL_state_string(tls->ssl);
    for (size_t i = 0; i < sizeof(STATES) / sizeof(STATES[0]); i++) {
        if (is_named(name, STATES[i].name)) {
            return STATES[i].state;
        }
    }
    return KU_STATE_OTHER;
}

static enum ku_tls_state
state_by_number(const struct ku_tls *tls)
{
    const struct ku_libssl *libssl = tls->libssl;
    if (libssl->ossl_statem_in_error(tls->ssl)) {
        return KU_STATE_FAILED;
    }
    int number = libssl->SSL_get_state(tls->ssl);
    if (number == TLS_ST_BEFORE || number == TLS_ST_OK) {
        return number == TLS_ST_OK ? KU_STATE_READY : KU_STATE_BEFORE;
    }
    for (int side = KU_CLIENT; side <= KU_SERVER; side++) {
        if (number == libssl->sent_key_update[side]) {
            return KU_STATE_SENT_KEY_UPDATE;
        }
        if (number == libssl->read_key_update[side]) {
            return KU_STATE_READ_KEY_UPDATE;
        }
    }
    return number == libssl->read_ticket  ? KU_STATE_READ_TICKET
           : number == libssl->sent_hello ? KU_STATE_SENT_HELLO
                                          : KU_STATE_OTHER;
}

enum ku_tls_state
ku_tls_state(const struct ku_tls *tls)
{
    return tls->libssl->SSL_state_string != NULL ? state_by_name(tls)
                                                 : state_by_number(tls);
}

/* --- the proof -------------------------------------------------------------------- */

/* OpenSSL passes the callbacks below nothing but the SSL.  These are what else they
   need, for one proof at a time. */
static ku_mutex proof_lock = KU_MUTEX_INITIALIZER;
static struct ku_libssl *proof_libssl;
static SSL *proof_sides[2];
static enum moment {
    ELSE,
    TAKING_TICKETS, /* the client's */
    SENDING,        /* a KeyUpdate */
    READING,        /* a KeyUpdate */
    MOMENTS
} moment;
static unsigned int states_seen[2];       /* bits of enum ku_tls_state */
static uint64_t numbers_seen[MOMENTS][2]; /* bits of SSL_get_state() */

static enum ku_tls_state
state_of_side(int side)
{
    const struct ku_tls tls = {.libssl = proof_libssl, .ssl = proof_sides[side]};
    return ku_tls_state(&tls);
}

/* There are about 50 states.  More than 64 would leave nothing to be learnt. */
static uint64_t
bit_of_number(int number)
{
    return number >= 0 && number < 64 ? (uint64_t)1 << number : UINT64_MAX;
}

static void
note_state_seen(const SSL *ssl, int where, int value)
{
    (void)where, (void)value;
    int side = ssl == proof_sides[KU_SERVER] ? KU_SERVER : KU_CLIENT;
    states_seen[side] |= 1u << state_of_side(side);
    if (proof_libssl->SSL_state_string == NULL) {
        int number = proof_libssl->SSL_get_state(ssl);
        numbers_seen[moment][side] |= bit_of_number(number);
    }
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

/* Have this side take TLS 1.3 with that suite, whatever the configuration says. */
static void
prepare_side(int side)
{
    SSL *ssl = proof_sides[side];
    (void)proof_libssl->SSL_ctrl(ssl, SSL_CTRL_SET_MAX_PROTO_VERSION, TLS1_3_VERSION,
                                 NULL);
    (void)proof_libssl->SSL_clear_options(ssl, SSL_OP_NO_TLSv1_3);
    (void)proof_libssl->SSL_set_ciphersuites(ssl, "TLS_AES_128_GCM_SHA256");
    proof_libssl->SSL_set_info_callback(ssl, note_state_seen);
}

/* Have the client send its ClientHello. */
static void
say_hello(void)
{
    SSL *client = proof_sides[KU_CLIENT];
    (void)proof_libssl->SSL_set_session_id_context(client, NULL, 0); /* as the PSK's */
    proof_libssl->SSL_set_psk_use_session_callback(client, offer_psk);
    proof_libssl->SSL_set_psk_find_session_callback(proof_sides[KU_SERVER], accept_psk);
    (void)proof_libssl->SSL_do_handshake(client);
    if (proof_libssl->SSL_state_string == NULL) {
        proof_libssl->sent_hello = proof_libssl->SSL_get_state(client);
    }
}

static int
shake_hands(void)
{
    int done[2] = {0, 0};
    for (int i = 0; i < 3; i++) {
        for (int side = KU_SERVER; side >= KU_CLIENT; side--) {
            done[side] = proof_libssl->SSL_do_handshake(proof_sides[side]) == 1;
        }
    }
    return done[KU_CLIENT] && done[KU_SERVER]
           && proof_libssl->SSL_version(proof_sides[KU_CLIENT]) == TLS1_3_VERSION;
}

/* Send one byte from one side to the other. */
static void
send_byte(int from, int to)
{
    char byte = 0;
    size_t n;
    (void)proof_libssl->SSL_write_ex(proof_sides[from], &byte, 1, &n);
    (void)proof_libssl->SSL_read_ex(proof_sides[to], &byte, 1, &n);
}

/* The same from the server, behind its session tickets. */
static void
send_tickets(void)
{
    moment = TAKING_TICKETS;
    send_byte(KU_SERVER, KU_CLIENT);
    moment = ELSE;
}

/* The same, behind a KeyUpdate that is scheduled or owed. */
static void
send_key_update(int from, int to)
{
    char byte = 0;
    size_t n;
    moment = SENDING;
    (void)proof_libssl->SSL_write_ex(proof_sides[from], &byte, 1, &n);
    moment = READING;
    (void)proof_libssl->SSL_read_ex(proof_sides[to], &byte, 1, &n);
    moment = ELSE;
}

/* Did both sides pass through both states of a KeyUpdate, and the client through that
   of a ticket? */
static int
names_hold(void)
{
    const unsigned int both =
        1u << KU_STATE_SENT_KEY_UPDATE | 1u << KU_STATE_READ_KEY_UPDATE;
    const unsigned int all = both | 1u << KU_STATE_READ_TICKET;
    return (states_seen[KU_CLIENT] & all) == all
           && (states_seen[KU_SERVER] & both) == both;
}

/* The number of the one state through which a side passes at this moment, and neither
   side at any other; or -1. */
static int
number_of(enum moment which, int side)
{
    uint64_t others = 0;
    for (int i = 0; i < MOMENTS * 2; i++) {
        others |= i / 2 == (int)which && i % 2 == side ? 0 : numbers_seen[i / 2][i % 2];
    }
    uint64_t own = numbers_seen[which][side] & ~others;
    for (int number = 0; number < 64; number++) {
        if (own == bit_of_number(number)) {
            return number;
        }
    }
    return -1;
}

static int
learn_numbers(void)
{
    proof_libssl->read_ticket = number_of(TAKING_TICKETS, KU_CLIENT);
    int learnt = proof_libssl->read_ticket >= 0;
    for (int side = KU_CLIENT; side <= KU_SERVER; side++) {
        int sent = number_of(SENDING, side), read = number_of(READING, side);
        proof_libssl->sent_key_update[side] = sent;
        proof_libssl->read_key_update[side] = read;
        learnt = learnt && sent >= 0 && read >= 0;
    }
    return learnt;
}

static int
both_are(enum ku_tls_state state)
{
    return state_of_side(KU_CLIENT) == state && state_of_side(KU_SERVER) == state;
}

enum proof { NOT_PROVED = -1, REFUTED, PROVED };

/* Check the states before the handshake, behind the ClientHello, after the handshake,
   while tickets come, while the client requests a key update and the server answers it,
   and after one side received what is not TLS. */
static enum proof
prove_states(void)
{
    int hold = both_are(KU_STATE_BEFORE);
    if (proof_libssl->SSL_key_update == NULL) {
        return NOT_PROVED;
    }
    say_hello();
    hold = hold && state_of_side(KU_CLIENT) == KU_STATE_SENT_HELLO;
    if (!shake_hands()) {
        return NOT_PROVED;
    }
    states_seen[KU_CLIENT] = states_seen[KU_SERVER] = 0;
    send_tickets();
    hold = hold && both_are(KU_STATE_READY);
    (void)proof_libssl->SSL_key_update(proof_sides[KU_CLIENT],
                                       SSL_KEY_UPDATE_REQUESTED);
    send_key_update(KU_CLIENT, KU_SERVER);
    send_key_update(KU_SERVER, KU_CLIENT);
    hold = hold && both_are(KU_STATE_READY)
           && (proof_libssl->SSL_state_string != NULL ? names_hold() : learn_numbers());
    BIO *bio = proof_libssl->SSL_get_wbio(proof_sides[KU_SERVER]);
    (void)proof_libssl->BIO_write(bio, "this is no TLS at all", 21);
    send_byte(KU_SERVER, KU_CLIENT);
    return hold && state_of_side(KU_CLIENT) == KU_STATE_FAILED ? PROVED : REFUTED;
}

/* A configuration may say that servers give none (NumTickets). */
static void
allow_tickets(PyObject *context, int side)
{
    PyObject *number = side == KU_SERVER ? PyLong_FromLong(1) : NULL;
    if (number != NULL && PyObject_SetAttrString(context, "num_tickets", number) < 0) {
        PyErr_Clear(); /* no TLS 1.3 */
    }
    Py_XDECREF(number);
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
    for (int side = KU_CLIENT; side <= KU_SERVER && bios[0] != NULL && bios[1] != NULL;
         side++) {
        PyObject *context =
            PyObject_CallMethod(_ssl, "_SSLContext", "i", PROTOCOLS[side]);
        if (context != NULL) {
            allow_tickets(context, side);
            pair[side] = PyObject_CallMethod(context, "_wrap_bio", "OOi", bios[side],
                                             bios[!side], side);
            Py_DECREF(context);
        }
    }
    Py_XDECREF(bios[0]);
    Py_XDECREF(bios[1]);
    return Py_BuildValue("NN", pair[0], pair[1]);
}

static enum proof
prove_on(ku_state *state, PyObject *pair)
{
    enum proof proof = NOT_PROVED;
    ku_mutex_lock(&proof_lock);
    proof_libssl = &state->libssl;
    memset(numbers_seen, 0, sizeof(numbers_seen));
    for (int side = KU_CLIENT; side <= KU_SERVER; side++) {
        proof_sides[side] = ku_sslobject_ssl(state, PyTuple_GetItem(pair, side));
    }
    if (proof_sides[KU_CLIENT] != NULL && proof_sides[KU_SERVER] != NULL) {
        prepare_side(KU_CLIENT);
        prepare_side(KU_SERVER);
        proof = prove_states();
    }
    state->libssl.ERR_clear_error();
    ku_mutex_unlock(&proof_lock);
    return proof;
}

int
ku_states_prove(ku_state *state, PyObject *_ssl)
{
    PyObject *pair = make_pair(_ssl);
    if (pair == NULL) {
        return -1;
    }
    enum proof proof = prove_on(state, pair);
    Py_DECREF(pair);
    if (proof == REFUTED) {
        PyErr_SetString(PyExc_ImportError,
                        "pykeyupdate cannot work here: the states of this OpenSSL's "
                        "connections are not those of 1.1.1 to 4.0, so what happens on "
                        "one cannot be told. Look for a newer pykeyupdate, or report "
                        "it with the output of `python -m pykeyupdate doctor`. (In the "
                        "sources: ext/openssl/states.c, STATES.)");
        return -1;
    }
    if (proof == NOT_PROVED && state->libssl.SSL_state_string == NULL) {
        PyErr_SetString(
            PyExc_ImportError,
            "pykeyupdate cannot work here: OpenSSL is linked statically into "
            "this interpreter and does not name its states. Their numbers "
            "must be learnt on a TLS 1.3 connection, and none can be made "
            "here. See whether OpenSSL's configuration (OPENSSL_CONF) "
            "forbids TLS 1.3 or pre-shared keys.");
        return -1;
    }
    return proof == PROVED;
}
