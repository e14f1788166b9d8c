#include "keys/peer_limits.h"

#include "keys/key_clock.h"
#include "keys/ledgers.h"
#include "keys/obstacles.h"
#include "openssl/states.h"

#define LEAST_LOOKS 10 /* before a renegotiation has taken too long */

void
ku_forbid_renegotiation(const struct ku_tls *tls)
{
    (void)tls->libssl->SSL_set_options(tls->ssl, SSL_OP_NO_RENEGOTIATION);
    ku_note_obstacle(tls);
}

/* From here on OpenSSL reads no further record and accepts no handshake. */
static void
cut_off_peer(const struct ku_tls *tls, enum ku_limit limit)
{
    struct ku_ledger *ledger = tls->ledger;
    ku_forbid_renegotiation(tls);
    tls->libssl->SSL_set_shutdown(tls->ssl, tls->libssl->SSL_get_shutdown(tls->ssl)
                                                | SSL_RECEIVED_SHUTDOWN);
    if (ledger->why_cut == NULL) {
        KU_SHOW(ledger->why_cut, ku_limit_names[limit]);
        ledger->events |= KU_EVENT_CUT_OFF;
        ku_ledger_count_cut(ledger, limit);
    }
}

/* Count one more event, and cut the peer off if it is one too many.  This is a bucket
   that holds `most` events and drains within `length`; `until` is when it will be empty
   (the generic cell rate algorithm).  A peer that never exceeds `most` within such a
   time is never cut off. */
static void
limit_rate(const struct ku_tls *tls, enum ku_limit limit, ku_time *until,
           ku_time length, uint32_t most)
{
    if (most == KU_ANY_NUMBER) {
        return;
    }
    ku_time now = ku_key_clock();
    if (most > 0) {
        *until = (*until > now ? *until : now) + length / most;
    }
    if (most == 0 || *until > now + length) {
        cut_off_peer(tls, limit);
    }
}

void
ku_limit_key_updates(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    limit_rate(tls, KU_LIMIT_KEY_UPDATES, &ledger->updates_until,
               rules->key_update_window, rules->key_updates);
    ku_time now = ku_key_clock();
    if (ledger->in_a_row == 0 || now - ledger->row_began > rules->key_update_window) {
        ledger->row_began = now;
        ledger->in_a_row = 0;
    }
    ledger->in_a_row++;
    if (ledger->in_a_row > rules->key_updates_in_a_row
        && rules->key_updates_in_a_row != KU_ANY_NUMBER) {
        cut_off_peer(tls, KU_LIMIT_KEY_UPDATES_IN_A_ROW);
    }
}

void
ku_limit_session_tickets(const struct ku_tls *tls)
{
    const struct ku_rules *rules = &tls->ledger->rules;
    limit_rate(tls, KU_LIMIT_SESSION_TICKETS, &tls->ledger->tickets_until,
               rules->session_ticket_window, rules->session_tickets);
}

void
ku_limit_renegotiations(const struct ku_tls *tls)
{
    const struct ku_rules *rules = &tls->ledger->rules;
    limit_rate(tls, KU_LIMIT_RENEGOTIATIONS, &tls->ledger->renegotiations_until,
               rules->renegotiation_window, rules->renegotiations);
}

void
ku_start_renegotiation_time(const struct ku_tls *tls)
{
    tls->ledger->renegotiation_seen = ku_key_clock();
    tls->ledger->renegotiation_taken = 0;
}

/* A server waits for its client from the ClientHello on.  A client's time begins when it
   has the server's answer: until then the server may still be sending data, for as long
   as it likes, and has not looked.  (Between a server's own HelloRequest and the
   ClientHello, OpenSSL is not "in init".)

   Nor does time count against a peer in which the program did something else: what the
   peer sent then is still unread, and there may have been no room for the rest.  How
   much of the time between two looks that was, nobody knows.  So no such time counts
   for more than a tenth of the limit: a peer whose messages take fewer looks than that
   is never cut off for our absence, and one that stalls has ten.

   Bytes that complete no message call no callback.  So this is asked before each step,
   not in the info callback. */
void
ku_limit_renegotiation_time(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (ledger == NULL || !ledger->renegotiates || ledger->why_cut != NULL
        || ledger->rules.renegotiation_time == KU_NEVER
        || tls->libssl->SSL_is_init_finished(tls->ssl)) {
        return;
    }
    ku_time now = ku_key_clock();
    ku_time passed = now - ledger->renegotiation_seen;
    ku_time most = ledger->rules.renegotiation_time / LEAST_LOOKS;
    ledger->renegotiation_seen = now;
    if (ku_tls_state(tls) == KU_STATE_SENT_HELLO) {
        ledger->renegotiation_taken = 0;
        return;
    }
    ledger->renegotiation_taken += passed < most ? passed : most;
    if (ledger->renegotiation_taken >= most * LEAST_LOOKS) {
        cut_off_peer(tls, KU_LIMIT_RENEGOTIATION_SECONDS);
    }
}

/* OpenSSL 3.0 and later also refuse a client's renegotiation unless
   SSL_OP_ALLOW_CLIENT_RENEGOTIATION is set. */
void
ku_allow_renegotiation(const struct ku_tls *tls, int change)
{
    struct ku_ledger *ledger = tls->ledger;
    const uint64_t both = SSL_OP_NO_RENEGOTIATION | SSL_OP_ALLOW_CLIENT_RENEGOTIATION;
    if (change > 0 && ledger->allowed++ == 0) {
        ledger->options_before = tls->libssl->SSL_get_options(tls->ssl) & both;
        if (ledger->why_cut == NULL) {
            (void)tls->libssl->SSL_clear_options(tls->ssl, SSL_OP_NO_RENEGOTIATION);
            (void)tls->libssl->SSL_set_options(tls->ssl,
                                               SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
        }
    }
    if (change < 0 && --ledger->allowed == 0 && ledger->why_cut == NULL) {
        (void)tls->libssl->SSL_clear_options(tls->ssl, both);
        (void)tls->libssl->SSL_set_options(tls->ssl, ledger->options_before);
    }
    ku_note_obstacle(tls);
}
