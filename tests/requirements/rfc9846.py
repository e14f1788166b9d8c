"""RFC 9846 (TLS 1.3, which replaced RFC 8446): KeyUpdate, and the limits of keys.

From section 4.7.3: every sentence with a keyword, and those without one that say what
goes on the wire. From section 5.5: the same, and its numbers. The text is that of the
RFC's plain-text version of July 2026.
"""

from . import NOT_APPLICABLE, NOT_MET, OPENSSL, Requirement

ENTRIES = {"4.7.3": 15, "5.5": 6}
# how often the source has each in a section
KEYWORDS = {
    "4.7.3": {"MUST": 6, "MUST NOT": 4, "SHALL": 1, "SHOULD": 1},
    "5.5": {"MUST": 1, "MUST NOT": 1, "SHOULD NOT": 1},
}

NOBODY_COUNTS = (
    NOT_MET
    + "neither OpenSSL nor pykeyupdate counts so far. At 30 microseconds an update "
    "it would take 267 years, at a policy's one second nine million."
)

REQUIREMENTS = [
    Requirement(
        "4.7.3",
        "This message can be sent by either peer after it has sent a Finished message.",
        met_by=("ku_was_connected",),
        tests=(
            "test_key_update.py::test_key_update_before_the_handshake_is_refused",
            "test_key_update.py::test_key_update_inside_the_handshake_is_refused",
            "test_sync.py::test_before_the_handshake",
        ),
        reason="Here it takes the peer's Finished, too: OpenSSL refuses it before.",
    ),
    Requirement(
        "4.7.3",
        "Implementations that receive a KeyUpdate message prior to receiving a "
        "Finished message MUST terminate the connection with an "
        '"unexpected_message" alert.',
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::test_a_key_update_before_finished_ends_the_handshake",
        ),
    ),
    Requirement(
        "4.7.3",
        "After sending a KeyUpdate message, the sender SHALL send all its traffic "
        "using the next generation of keys, computed as described in Section 7.2.",
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::"
            "test_a_key_update_is_under_the_old_keys_and_what_follows_under_the_next",
            "test_key_generations.py::test_rekey_sends_the_message_under_the_old_keys_too",
        ),
        reason="But for kTLS before OpenSSL 3.2, which keys_in_kernel() refuses.",
    ),
    Requirement(
        "4.7.3",
        "Upon receiving a KeyUpdate, the receiver MUST update its receiving keys.",
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::test_receiving_keys_change_with_each_key_update",
            "test_key_generations.py::test_the_old_keys_are_not_taken_behind_a_key_update",
        ),
    ),
    Requirement(
        "4.7.3",
        "If an implementation receives any other value, it MUST terminate the "
        'connection with an "illegal_parameter" alert.',
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::"
            "test_another_value_of_request_update_ends_the_connection",
        ),
    ),
    Requirement(
        "4.7.3",
        'If the request_update field is set to "update_requested", then the receiver '
        "MUST send a KeyUpdate of its own with request_update set to "
        '"update_not_requested" prior to sending its next Application Data record.',
        met_by=(OPENSSL, "key_update_pending", "rekey_step", "choose_update_type"),
        tests=(
            "test_key_generations.py::test_an_answer_goes_before_the_next_data",
            "test_key_update.py::test_owed_answer_is_not_replaced_by_a_request",
            "test_sync.py::test_owed_answer_is_never_replaced",
            "test_sync.py::test_flush_sends_the_answer_of_a_program_that_only_reads",
            "test_policy.py::test_an_answer_that_is_owed_is_not_replaced_by_a_request",
        ),
        reason="OpenSSL answers with the next write; ours is that no request takes "
        "the answer's place.",
    ),
    Requirement(
        "4.7.3",
        "This mechanism allows either side to force an update to the entire "
        "connection, but causes an implementation which receives multiple KeyUpdates "
        "while it is silent to respond with a single update.",
        met_by=(),
        tests=("test_openssl_cases.py::test_several_requests_are_answered_one_by_one",),
        reason=NOT_MET + "OpenSSL answers each of several requests that it reads, and "
        "all but the last inside the read.",
    ),
    Requirement(
        "4.7.3",
        "Until receiving a subsequent KeyUpdate from the peer, the sender MUST NOT "
        'send another KeyUpdate with request_update set to "update_requested".',
        met_by=("peer_keys_are_due", "choose_update_type", "schedule_new_keys"),
        tests=(
            "test_policy.py::test_one_request_is_outstanding_at_a_time",
            "test_policy.py::test_a_peer_that_lags_is_asked_once",
            "test_policy.py::test_a_wish_for_both_sides_keys_asks_no_second_time",
        ),
        reason="Met by policies, request_rekey() and rekey_all(). Not met by "
        "key_update(conn, REQUESTED) and rekey(conn, request_peer=True), which do as "
        "they are told (test_forty_updates_in_a_row): OpenSSL does not count, and of a "
        "connection that is not managed nobody knows. stats().request_outstanding "
        "tells of one that is.",
    ),
    Requirement(
        "4.7.3",
        "Note that implementations may receive an arbitrary number of messages between "
        'sending a KeyUpdate with request_update set to "update_requested" and '
        "receiving the peer's KeyUpdate, including unrelated KeyUpdates, because those "
        "messages may already be in flight.",
        met_by=(OPENSSL, "note_update_received"),
        tests=(
            "test_key_generations.py::"
            "test_anything_may_come_before_the_answer_to_a_request",
            "test_peer_limits.py::test_a_request_of_the_peers_is_no_answer",
        ),
    ),
    Requirement(
        "4.7.3",
        "If implementations independently send their own KeyUpdates with "
        'request_update set to "update_requested", and they cross in flight, then each '
        "side will also send a response, with the result that each side increments by "
        "two generations.",
        met_by=(OPENSSL,),
        tests=(
            "test_openssl_cases.py::test_both_sides_request_at_once",
            "test_peer_limits.py::test_a_request_of_the_peers_is_no_answer",
        ),
    ),
    Requirement(
        "4.7.3",
        "Both sender and receiver MUST encrypt their KeyUpdate messages with the old "
        "keys.",
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::"
            "test_a_key_update_is_under_the_old_keys_and_what_follows_under_the_next",
            "test_key_generations.py::test_rekey_sends_the_message_under_the_old_keys_too",
            "test_key_generations.py::test_an_answer_goes_before_the_next_data",
        ),
    ),
    Requirement(
        "4.7.3",
        "Additionally, both sides MUST enforce that a KeyUpdate with the old key is "
        "received before accepting any messages encrypted with the new key.",
        met_by=(OPENSSL,),
        tests=(
            "test_key_generations.py::"
            "test_the_next_keys_are_not_taken_before_their_key_update",
        ),
    ),
    Requirement(
        "4.7.3",
        "To provide an extra margin of security, sending implementations MUST NOT "
        "allow the epoch -- and hence the number of key updates -- to exceed 2^48-1.",
        reason=NOBODY_COUNTS,
    ),
    Requirement(
        "4.7.3",
        "In order to allow this value to be changed later -- for instance for ciphers "
        "with more than 128-bit keys -- receiving implementations MUST NOT enforce "
        "this rule.",
        met_by=(OPENSSL, "limit_rate"),
        tests=(
            "test_peer_limits.py::test_without_limits",
            "test_peer_limits.py::test_a_window_ends",
        ),
        reason="PeerLimits are about how many in a time and in a row, never about how "
        "many in all.",
    ),
    Requirement(
        "4.7.3",
        "If a sending implementation receives a KeyUpdate with request_update set to "
        '"update_requested", it MUST NOT send its own KeyUpdate if that would cause it '
        "to exceed these limits and SHOULD instead ignore the "
        '"update_requested" flag.',
        reason=NOBODY_COUNTS,
    ),
    Requirement(
        "5.5",
        "There are cryptographic limits on the amount of plaintext which can be safely "
        "encrypted under a given set of keys.",
        met_by=("cipher_limit", "ku_start_sent_keys", "ku_count_sent"),
        tests=(
            "test_policy.py::test_limits_of_the_cipher_suites",
            "test_policy.py::"
            "test_records_are_counted_where_the_peer_wants_smaller_ones",
        ),
        reason="OpenSSL counts nothing; the records of managed connections are "
        "counted.",
    ),
    Requirement(
        "5.5",
        "Implementations MUST either close the connection or do a key update as "
        "described in Section 4.7.3 prior to reaching these limits.",
        met_by=("ku_policy_admit_write", "schedule_new_keys", "act_on_impossible"),
        tests=(
            "test_policy.py::test_never_more_than_n_records_under_one_key",
            "test_policy.py::test_updates_that_others_begin_count_as_well",
            "test_policy.py::test_limits_of_the_cipher_suites",
            "test_policy.py::test_impossible_closes",
        ),
        reason="Of connections that are managed with a policy whose aead_limit is not "
        "switched off; of others nobody counts. tests/stress/aead.py reaches the limit "
        'for real, which takes two minutes. With on_impossible="ignore", or a function '
        "that returns, a connection below TLS 1.3 goes on.",
    ),
    Requirement(
        "5.5",
        "Note that it is not possible to perform a KeyUpdate for early data; "
        "therefore, implementations MUST NOT exceed the limits when sending early "
        "data.",
        reason=NOT_APPLICABLE + "the ssl module sends no early data.",
    ),
    Requirement(
        "5.5",
        "Receiving implementations SHOULD NOT enforce these limits, as future analyses "
        "may result in updated values.",
        met_by=("ku_policy_renew_if_due",),
        tests=(
            "test_policy.py::test_a_peer_that_never_answers_is_read_all_the_same",
            "test_policy.py::test_a_peer_that_lags_is_asked_once",
        ),
        reason="A policy asks the peer for new keys, and reads on.",
    ),
    Requirement(
        "5.5",
        "For AES-GCM, up to 2^24.5 full-size records (about 24 million) may be "
        "encrypted under a given set of keys while keeping a safety margin of "
        "approximately 2^-57 for Authenticated Encryption (AE) security.",
        met_by=("cipher_limit", "ku_start_sent_keys"),
        tests=("test_policy.py::test_limits_of_the_cipher_suites",),
        reason="Each record counts as a full one. New keys come at 3/4 of it, the "
        "peer's are asked for at 7/8.",
    ),
    Requirement(
        "5.5",
        "For ChaCha20/Poly1305, the record sequence number would wrap before the "
        "safety limit is reached.",
        met_by=("cipher_limit",),
        tests=("test_policy.py::test_limits_of_the_cipher_suites",),
        reason="No limit.",
    ),
]
