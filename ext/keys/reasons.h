/* The words for why: why keys were changed, why they cannot be, and which limit a peer
   exceeded.  Programs, metrics and the log get these words (pykeyupdate/_stats.py has the
   same, each with its meaning; tests/test_tables.py compares the two). */
#ifndef PYKEYUPDATE_REASONS_H
#define PYKEYUPDATE_REASONS_H

#include "openssl/outcome.h"

/* clang-format off */

/* Why this side's keys were changed. */
#define KU_CHANGES(X)                          \
    X(KU_CHANGE_EXPLICIT, explicit)               \
    X(KU_CHANGE_PEER_ASKED, peer_asked)           \
    X(KU_CHANGE_RECORDS, records)                 \
    X(KU_CHANGE_BYTES, bytes)                     \
    X(KU_CHANGE_AGE, age)                         \
    X(KU_CHANGE_IDLE, idle)                       \
    X(KU_CHANGE_AEAD_LIMIT, aead_limit)           \
    X(KU_CHANGE_REQUEST_REKEY, request_rekey)     \
    X(KU_CHANGE_REKEY_ALL, rekey_all)

/* The limit that a peer exceeded: the names in PeerLimits. */
#define KU_LIMITS(X)                                   \
    X(KU_LIMIT_KEY_UPDATES, key_updates)                  \
    X(KU_LIMIT_KEY_UPDATES_IN_A_ROW, key_updates_in_a_row) \
    X(KU_LIMIT_RENEGOTIATIONS, renegotiations)            \
    X(KU_LIMIT_RENEGOTIATION_SECONDS, renegotiation_seconds) \
    X(KU_LIMIT_SESSION_TICKETS, session_tickets)

/* Why a policy cannot have the new keys that it wants. */
#define KU_CAUSES(X)                                              \
    X(KU_CAUSE_NOT_ALLOWED, renegotiation_not_allowed)               \
    X(KU_CAUSE_FORBIDDEN, renegotiation_forbidden)                   \
    X(KU_CAUSE_INSECURE, insecure_renegotiation)                     \
    X(KU_CAUSE_KERNEL_TLS, kernel_tls)                               \
    X(KU_CAUSE_CLOSE_RECEIVED, close_received)                       \
    X(KU_CAUSE_MISSING, unsupported_by_library)                      \
    X(KU_CAUSE_OPENSSL, refused_by_openssl)                          \
    X(KU_CAUSE_NEEDS_OWNER, needs_owner)                             \
    X(KU_CAUSE_NOT_YET, not_yet)                                     \
    X(KU_CAUSE_ENDED, ended)

/* clang-format on */

#define KU_WORD(number, name) number,
enum ku_change { KU_CHANGES(KU_WORD) KU_CHANGE_END };
enum ku_limit { KU_LIMITS(KU_WORD) KU_LIMIT_END };
enum ku_cause { KU_CAUSES(KU_WORD) KU_CAUSE_END };
#undef KU_WORD

/* Their words, each list with a NULL at its end. */
extern const char *const ku_change_names[KU_CHANGE_END + 1];
extern const char *const ku_limit_names[KU_LIMIT_END + 1];
extern const char *const ku_cause_names[KU_CAUSE_END + 1];

/* Why new keys that must be had cannot be had: what this refusal means to a policy. */
enum ku_cause ku_cause_of(const struct ku_outcome *outcome);

#endif
