/* The states of OpenSSL's handshake state machine.

   By name, SSL_state_string(), where the library has this function: the names have been
   the same from 1.1.1 to 4.0 (ssl_stat.c).  An interpreter into which OpenSSL is linked
   statically lacks it.  There, the state is a number, SSL_get_state(), and a private
   function tells whether the connection has failed.  The numbers of the states that
   matter here differ between versions (3.0 and 3.2), so they are learnt.

   Of the extension only states.c knows names and numbers, and it proves either when the
   module is imported: the names wherever TLS 1.3 can be had, and the numbers always.
   (The tests' own witness, tests/support/openssl_witness.py, knows one state.) */
#ifndef PYKEYUPDATE_STATES_H
#define PYKEYUPDATE_STATES_H

#include "openssl/module_state.h"
#include "openssl/tls.h"

enum ku_tls_state {
    KU_STATE_OTHER,
    KU_STATE_BEFORE,          /* no handshake has begun */
    KU_STATE_READY,           /* no message is in progress; a KeyUpdate may be due */
    KU_STATE_FAILED,          /* a fatal error; stays so forever */
    KU_STATE_SENT_KEY_UPDATE, /* the message is built; its bytes may be half sent */
    KU_STATE_READ_KEY_UPDATE, /* the peer's message has been read completely */
    KU_STATE_READ_TICKET,     /* so has a NewSessionTicket */
    KU_STATE_SENT_HELLO,      /* a ClientHello is sent, and not answered yet */
};

enum ku_tls_state ku_tls_state(const struct ku_tls *tls);

/* Prove them, and learn the numbers, on a private connection over memory: TLS 1.3 with a
   pre-shared key, on which both sides change their keys.  Returns 1; 0 if there are
   names and no such connection can be made (a configuration without TLS 1.3), so that
   nothing is proved; or -1 with an exception, ImportError if a state is not what we take
   it for, because everything that relies on it would be wrong. */
int ku_states_prove(ku_state *state, PyObject *_ssl);

#endif
