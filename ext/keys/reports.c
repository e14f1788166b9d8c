#include "keys/reports.h"

#include "keys/key_clock.h"
#include "keys/key_use.h"
#include "keys/ledgers.h"
#include "keys/notes.h"
#include "keys/obstacles.h"
#include "keys/opening.h"
#include "keys/peer_limits.h"
#include "openssl/questions.h"
#include "openssl/states.h"

/* This side's keys have changed. */
static void
count_change(struct ku_ledger *ledger, enum ku_count what, enum ku_change why)
{
    ku_ledger_count_change(ledger, what, why);
    ledger->why_changed = (unsigned char)why;
    ledger->why_next = KU_CHANGE_EXPLICIT; /* unless somebody says otherwise */
}

static void
note_update_sent(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    count_change(ledger, KU_COUNT_UPDATES_SENT, ledger->why_next);
    ledger->unheard = 1;
    ledger->heard_before = (uint32_t)ledger->received.records;
    if (ledger->requesting) {
        ku_ledger_count(ledger, KU_COUNT_REQUESTS_SENT);
        KU_SHOW(ledger->request_outstanding, 1);
        ledger->answers_due++;
        ledger->requesting = 0;
    }
    KU_SHOW(ledger->answer_owed, 0); /* any update is an answer */
    ku_start_sent_keys(tls);
    ledger->events |= KU_EVENT_UPDATE_SENT;
}

/* The answer to a request of ours is not held against the peer.  A KeyUpdate that
   itself requests an update is no answer: an answer is update_not_requested (RFC 9846
   section 4.7.3).  The pending type belongs to this message, because OpenSSL sends an
   answer that it owes before it reads the next KeyUpdate. */
static void
note_update_received(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    int requests = ku_pending_key_update(tls) == SSL_KEY_UPDATE_NOT_REQUESTED;
    ku_ledger_count(ledger, KU_COUNT_UPDATES_RECEIVED);
    ku_start_received_keys(tls);
    ledger->events |= KU_EVENT_UPDATE_RECEIVED;
    ledger->unheard = 0;
    if (requests) {
        KU_SHOW(ledger->answer_owed, 1);
        ku_ledger_count(ledger, KU_COUNT_REQUESTS_RECEIVED);
        ku_ledger_note_scheduled(ledger, KU_CHANGE_PEER_ASKED);
    }
    else if (ledger->answers_due > 0) {
        ledger->answers_due--;
        KU_SHOW(ledger->request_outstanding, 0);
        return;
    }
    ku_limit_key_updates(tls);
}

/* The type of a KeyUpdate is set before OpenSSL builds the message, while the state is
   KU_STATE_READY, and is gone once the message is built. */
static void
note_state(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    switch (ku_tls_state(tls)) {
    case KU_STATE_READY:
        ledger->requesting = ku_pending_key_update(tls) == SSL_KEY_UPDATE_REQUESTED;
        break;
    case KU_STATE_SENT_KEY_UPDATE: note_update_sent(tls); break;
    case KU_STATE_READ_KEY_UPDATE: note_update_received(tls); break;
    case KU_STATE_READ_TICKET: ku_limit_session_tickets(tls); break;
    default: break;
    }
}

/* SSL_renegotiate_pending() means that this side has asked: for a server, by its own
   HelloRequest, and then for the handshake that follows.  A HelloRequest that a client
   receives, and a ClientHello that comes unasked, are the peer's. */
static void
note_handshake_start(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ledger->renegotiates = ledger->connected;
    ku_start_renegotiation_time(tls);
    if (ledger->connected && !ku_renegotiates(tls)) {
        ledger->by_peer = 1;
        ku_limit_renegotiations(tls);
    }
}

static void
note_connected(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ku_start_keys(tls);
    int version = tls->libssl->SSL_version(tls->ssl);
    const SSL_CIPHER *cipher = tls->libssl->SSL_get_current_cipher(tls->ssl);
    ku_ledgers_lock();
    ledger->connected = 1;
    ledger->facts.cipher = cipher;
    ledger->facts.version = (unsigned short)version;
    ku_ledgers_unlock();
    ku_note_obstacle(tls);
}

static void
note_handshake_done(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->connected) {
        note_connected(tls);
        ledger->last_update = ku_key_clock() - ledger->rules.min_interval;
        return;
    }
    if (ku_renegotiates(tls)) {
        return; /* only a HelloRequest was sent */
    }
    if (ledger->why_cut != NULL || !ledger->renegotiates) {
        return; /* refused; OpenSSL calls that done, too */
    }
    ledger->renegotiates = 0;
    note_connected(tls);
    count_change(ledger,
                 ledger->by_peer ? KU_COUNT_PEER_RENEGOTIATIONS
                                 : KU_COUNT_RENEGOTIATIONS,
                 ledger->by_peer ? KU_CHANGE_PEER_ASKED : ledger->why_next);
    if (ledger->by_peer && ledger->rules.mode == KU_ONCE && !ledger->allowed) {
        ku_forbid_renegotiation(tls);
    }
    ledger->by_peer = 0;
    ledger->events |= KU_EVENT_RENEGOTIATED;
}

static void
note_refused_renegotiation(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ku_ledger_count(ledger, KU_COUNT_REFUSED);
    ledger->renegotiates = 0;
    if (ledger->by_peer) {
        ledger->by_peer = 0; /* it was counted when it began */
    }
    else {
        ku_limit_renegotiations(tls);
    }
    if (ledger->why_cut == NULL) {
        ledger->events |= KU_EVENT_PEER_REFUSED; /* a cut-off says more */
    }
}

/* TLS 1.3 has half-closed connections: what one side sends after the other's
   close_notify may be under a new key. */
static void
note_alert(const struct ku_tls *tls, int is_sent, int value)
{
    struct ku_ledger *ledger = tls->ledger;
    if (value == SSL_CB_CLOSE_NOTIFY) {
        ledger->unheard = 0; /* it ends as it should */
    }
    if (value >> 8 == SSL_CB_FATAL || (value == SSL_CB_CLOSE_NOTIFY && is_sent)) {
        ku_note_lasting_obstacle(ledger, KU_CAUSE_ENDED);
    }
    else if (value == SSL_CB_CLOSE_NOTIFY && !ku_is_tls13(tls)) {
        ku_note_lasting_obstacle(ledger, KU_CAUSE_CLOSE_RECEIVED);
    }
}

/* The info callback.  OpenSSL calls it inside SSL_read() and similar functions, often
   without the GIL.  (1.1.1 and 1.1.1a report the start and the end of a handshake
   around a KeyUpdate.) */
static void
info_callback(const SSL *const_ssl, int where, int value)
{
    struct ku_tls tls;
    if (!ku_ledger_find((SSL *)(uintptr_t)const_ssl, &tls)) {
        return;
    }
    int is_tls13 = ku_is_tls13(&tls);
    if (where & SSL_CB_LOOP) {
        if (is_tls13 && tls.ledger->connected) {
            note_state(&tls);
        }
    }
    else if (where == SSL_CB_WRITE_ALERT && value == SSL_CB_NO_RENEGOTIATION) {
        note_refused_renegotiation(&tls);
    }
    else if (where & SSL_CB_ALERT) {
        note_alert(&tls, where == SSL_CB_WRITE_ALERT, value);
    }
    else if (is_tls13 && tls.ledger->connected) {
        return;
    }
    else if (where == SSL_CB_HANDSHAKE_START) {
        note_handshake_start(&tls);
    }
    else if (where == SSL_CB_HANDSHAKE_DONE) {
        note_handshake_done(&tls);
    }
}

void
ku_start_reports(const struct ku_tls *tls)
{
    tls->libssl->SSL_set_info_callback(tls->ssl, info_callback);
    if (tls->ledger->rules.mode == KU_NEVER_RENEGOTIATE) {
        ku_forbid_renegotiation(tls);
    }
}
