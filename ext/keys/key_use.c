#include "keys/key_use.h"

#include "keys/key_clock.h"
#include "keys/ledgers.h"
#include "openssl/questions.h"

/* RFC 9846 section 5.5 gives AES-GCM "up to 2^24.5 full-size records".  AES-CCM gets
   2^23 from RFC 9147 section 4.5.3 (DTLS 1.3; RFC 9846 gives no number, and says that
   its bound is lower).  ChaCha20-Poly1305's sequence number wraps first. */
#define GCM_RECORD_LIMIT 23726566
#define CCM_RECORD_LIMIT 8388608
#define RECORDS_KEPT_BACK 16 /* for the KeyUpdate itself, and for alerts */

/* A random factor between 1 - jitter and 1, so keys never change later than the rule
   says.  (splitmix64; nothing secret depends on it.) */
static double
jittered_share(struct ku_ledger *ledger)
{
    uint64_t z = ledger->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    double chance = (double)((z ^ z >> 31) >> 11) / 9007199254740992.0; /* 2^53 */
    return 1.0 - (double)ledger->rules.jitter * chance;
}

static uint64_t
fraction_of(uint64_t limit, double of)
{
    if (limit == KU_NO_LIMIT || of >= 1.0) {
        return limit;
    }
    uint64_t some = (uint64_t)((double)limit * of);
    return some > 0 ? some : 1;
}

static uint64_t
smaller_of(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* How many records the cipher suite allows under one key.  RFC 9846 says nothing about
   TLS 1.2, so there the limit counts only if the policy may renegotiate. */
static uint64_t
cipher_limit(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    if (!ledger->rules.aead_limit
        || (!ku_is_tls13(tls) && !ledger->rules.renegotiate)) {
        return KU_NO_LIMIT;
    }
    const SSL_CIPHER *cipher = tls->libssl->SSL_get_current_cipher(tls->ssl);
    if (cipher == NULL || !tls->libssl->SSL_CIPHER_is_aead(cipher)) {
        return KU_NO_LIMIT;
    }
    switch (tls->libssl->SSL_CIPHER_get_cipher_nid(cipher)) {
    case NID_chacha20_poly1305: return KU_NO_LIMIT;
    case NID_aes_128_ccm:
    case NID_aes_192_ccm:
    case NID_aes_256_ccm: return CCM_RECORD_LIMIT;
    default: return GCM_RECORD_LIMIT;
    }
}

/* The most plaintext in one record.  A peer that has asked for shorter records (RFC
   6066 section 4) gets more of them. */
static uint32_t
max_fragment_length(const struct ku_tls *tls)
{
    const SSL_SESSION *session = tls->libssl->SSL_get_session(tls->ssl);
    int code = 0;
    if (session != NULL) {
        code = tls->libssl->SSL_SESSION_get_max_fragment_length(session);
    }
    return code >= 1 && code <= 4 ? (uint32_t)256 << code : TLS_MAX_PLAINTEXT;
}

/* NSS's margins: as the writer we update at 3/4 of what the cipher suite allows; as the
   reader we request an update at 7/8, if the peer has not updated by itself. */
void
ku_start_sent_keys(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    double some = jittered_share(ledger);
    uint64_t cipher = cipher_limit(tls);
    ledger->cipher_records =
        cipher == KU_NO_LIMIT ? cipher : cipher - RECORDS_KEPT_BACK;
    struct ku_keys fresh = {.since = ku_key_clock()};
    fresh.max_records =
        fraction_of(smaller_of(rules->sent_records, fraction_of(cipher, 0.75)), some);
    fresh.max_bytes = fraction_of(rules->sent_bytes, some);
    fresh.max_age =
        rules->age == KU_NEVER ? KU_NEVER : (ku_time)((double)rules->age * some);
    ledger->last_update = ledger->last_io = fresh.since;
    ledger->overuse_permitted = ledger->deferring = 0;
    ku_ledgers_lock();
    ledger->sent = fresh;
    ku_ledgers_unlock();
}

void
ku_start_received_keys(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    const struct ku_rules *rules = &ledger->rules;
    uint64_t cipher = cipher_limit(tls);
    struct ku_keys fresh = {.since = ku_key_clock()};
    fresh.max_records = smaller_of(rules->received_records, fraction_of(cipher, 0.875));
    fresh.max_bytes = rules->received_bytes;
    fresh.max_age = rules->age == KU_NEVER ? KU_NEVER : rules->age / 6 * 7;
    ku_ledgers_lock();
    ledger->received = fresh;
    ku_ledgers_unlock();
}

void
ku_start_keys(const struct ku_tls *tls)
{
    struct ku_ledger *ledger = tls->ledger;
    ledger->max_fragment = max_fragment_length(tls);
    ku_start_sent_keys(tls);
    ku_start_received_keys(tls);
    KU_SHOW(ledger->last_data, ledger->last_io);
}

/* This process uses the connection now, no longer only its parent. */
static void
take_over(struct ku_ledger *ledger)
{
    if (ledger->inherited) {
        ku_ledgers_lock();
        ledger->inherited = 0;
        ku_ledgers_unlock();
    }
}

static void
count_data(struct ku_ledger *ledger, struct ku_keys *keys, uint64_t records,
           size_t bytes)
{
    KU_SHOW(keys->records, keys->records + records);
    KU_SHOW(keys->bytes, keys->bytes + bytes);
    if (ku_ledgers_are_watched()) {
        KU_SHOW(ledger->last_data, ku_key_clock_roughly());
    }
}

/* Data that we send counts as progress too: a peer that only receives may still request
   key updates. */
void
ku_count_sent(struct ku_ledger *ledger, size_t bytes)
{
    take_over(ledger);
    ledger->in_a_row = bytes > 0 ? 0 : ledger->in_a_row;
    count_data(ledger, &ledger->sent,
               bytes > ledger->max_fragment ? (bytes - 1) / ledger->max_fragment + 1
                                            : bytes > 0,
               bytes);
}

void
ku_count_received(struct ku_ledger *ledger, size_t bytes, int begins)
{
    count_data(ledger, &ledger->received, begins != 0, bytes);
    take_over(ledger);
    ledger->in_a_row = 0;
}

void
ku_count_begun(struct ku_ledger *ledger)
{
    count_data(ledger, &ledger->received, 1, 0);
}
