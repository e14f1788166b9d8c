"""SSL_key_update(3) of OpenSSL: every sentence.

Source: doc/man3/SSL_key_update.pod. It is the same in 3.5, 3.6 and 4.0, and its
misprints are kept.
"""

from . import NOT_APPLICABLE, OPENSSL, Requirement

ENTRIES = {
    "DESCRIPTION": 27,
    "USAGE WITH QUIC": 7,
    "RETURN VALUES": 3,
    "HISTORY": 1,
}
KEYWORDS = {}  # no RFC, no capitals

QUIC = NOT_APPLICABLE + "the ssl module makes no QUIC connections."

REQUIREMENTS = [
    Requirement(
        "DESCRIPTION",
        "SSL_key_update() schedules an update of the keys for the current TLS "
        "connection.",
        met_by=("py_key_update", "ku_schedule_key_update"),
        tests=(
            "test_key_update.py::test_key_update_sends_nothing_when_called",
            "test_key_update.py::test_key_log_shows_a_new_secret_for_each_update",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "If the updatetype parameter is set to SSL_KEY_UPDATE_NOT_REQUESTED then the "
        "sending keys for this connection will be updated and the peer will be "
        "informed of the change.",
        met_by=("ku_schedule_key_update",),
        tests=(
            "test_key_update.py::test_not_requested_changes_only_our_sending_keys",
            "test_key_update.py::test_key_update_informs_the_peer",
            "test_key_generations.py::"
            "test_a_key_update_is_under_the_old_keys_and_what_follows_under_the_next",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "If the updatetype parameter is set to SSL_KEY_UPDATE_REQUESTED then the "
        "sending keys for this connection will be updated and the peer will be "
        "informed of the change along with a request for the peer to additionally "
        "update its sending keys.",
        met_by=("ku_schedule_key_update",),
        tests=(
            "test_key_update.py::"
            "test_requested_makes_the_peer_update_its_keys_with_its_next_write",
            "test_key_update.py::test_key_update_informs_the_peer",
            "test_key_generations.py::"
            "test_a_key_update_is_under_the_old_keys_and_what_follows_under_the_next",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "It is an error if updatetype is set to SSL_KEY_UPDATE_NONE.",
        met_by=("update_type_of",),
        tests=("test_key_update.py::test_other_update_types_are_a_value_error",),
    ),
    Requirement(
        "DESCRIPTION",
        "SSL_key_update() must only be called after the initial handshake has been "
        "completed and TLSv1.3 or QUIC has been negotiated, at the same time, the "
        "application needs to ensure that the writing of data has been completed.",
        met_by=("ku_check_key_update", "ku_was_connected", "data_pending"),
        tests=(
            "test_key_update.py::test_key_update_before_the_handshake_is_refused",
            "test_key_update.py::test_key_update_inside_the_handshake_is_refused",
            "test_key_update.py::test_key_update_on_tls12_is_refused",
            "test_key_update.py::test_key_update_with_a_write_pending_is_refused",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "The key update will not take place until the next time an IO operation such "
        "as SSL_read_ex() or SSL_write_ex() takes place on the connection.",
        met_by=(OPENSSL,),
        tests=(
            "test_key_update.py::test_key_update_sends_nothing_when_called",
            "test_key_update.py::test_update_takes_place_at_the_next_io",
            "test_key_update.py::test_pending_is_no_io",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "Alternatively SSL_do_handshake() can be called to force the update to take "
        "place immediately.",
        met_by=(OPENSSL, "ku_do_handshake"),
        tests=(
            "test_key_update.py::test_update_takes_place_at_the_next_io",
            "test_key_update.py::test_do_handshake_does_not_wait_for_the_peer",
            "test_sync.py::test_tls13_is_a_key_update_sent_now",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "SSL_get_key_update_type() can be used to determine whether a key update "
        "operation has been scheduled but not yet performed.",
        met_by=("py_get_key_update_type", "get_key_update_type_step"),
        tests=(
            "test_key_update.py::test_type_is_the_pending_one_until_it_is_performed",
            "test_key_update.py::test_type_is_none_when_built_but_not_sent",
        ),
        reason='"Performed" is OpenSSL\'s: built, though perhaps not sent.',
    ),
    Requirement(
        "DESCRIPTION",
        "The type of the pending key update operation will be returned if there is "
        "one, or SSL_KEY_UPDATE_NONE otherwise.",
        met_by=("py_get_key_update_type",),
        tests=(
            "test_key_update.py::test_type_is_the_pending_one_until_it_is_performed",
            "test_key_update.py::test_type_is_none_when_nothing_is_pending",
            "test_key_update.py::test_type_is_none_before_the_handshake_and_on_tls12",
            "test_key_update.py::test_type_is_not_requested_while_we_owe_an_answer",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "SSL_renegotiate() and SSL_renegotiate_abbreviated() should only be called for "
        "connections that have negotiated TLSv1.2 or less.",
        met_by=("ku_check_renegotiation",),
        tests=(
            "test_renegotiation.py::test_tls13_is_refused",
            "test_renegotiation.py::"
            "test_before_the_handshake_is_refused_and_nothing_leaks",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "Calling them on any other connection will result in an error.",
        met_by=("ku_check_renegotiation",),
        tests=("test_renegotiation.py::test_tls13_is_refused",),
    ),
    Requirement(
        "DESCRIPTION",
        "When called from the client side, SSL_renegotiate() schedules a completely "
        "new handshake over an existing SSL/TLS connection.",
        met_by=("py_renegotiate", "ku_schedule_renegotiation"),
        tests=(
            "test_renegotiation.py::test_client_call_sends_nothing",
            "test_renegotiation.py::test_client_renegotiate_is_a_full_handshake",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "The next time an IO operation such as SSL_read_ex() or SSL_write_ex() takes "
        "place on the connection a check will be performed to confirm that it is a "
        "suitable time to start a renegotiation.",
        met_by=(OPENSSL, "renegotiation_state"),
        tests=(
            "test_renegotiation.py::test_half_a_hello_request_is_refused_on_a_client",
            "test_renegotiation.py::test_unread_data_is_refused_on_a_client",
            "test_renegotiation.py::test_with_a_write_pending_is_refused",
        ),
        reason="OpenSSL looks for half a record and a pending write alone; what its "
        "check lets through and dies of is refused when the call is made.",
    ),
    Requirement(
        "DESCRIPTION",
        "If so, then it will be initiated immediately.",
        met_by=(OPENSSL,),
        tests=("test_renegotiation.py::test_client_begins_at_the_next_io",),
    ),
    Requirement(
        "DESCRIPTION",
        "OpenSSL will not attempt to resume any session associated with the "
        "connection in the new handshake.",
        met_by=(OPENSSL,),
        tests=("test_renegotiation.py::test_client_renegotiate_is_a_full_handshake",),
    ),
    Requirement(
        "DESCRIPTION",
        "Note that some servers will respond to reneogitation attempts with a "
        '"no_renegotiation" alert.',
        met_by=(OPENSSL,),
        tests=(
            "test_renegotiation.py::test_op_allow_client_renegotiation_is_what_allows_it",
            "test_peer_limits.py::test_never",
        ),
        reason="OpenSSL 3's own servers do, unless OP_ALLOW_CLIENT_RENEGOTIATION is "
        "set, and so do managed ones whose PeerLimits say so.",
    ),
    Requirement(
        "DESCRIPTION",
        "An OpenSSL will immediately fail the connection in this case.",
        met_by=(OPENSSL,),
        tests=(
            "test_renegotiation.py::test_a_refused_renegotiation_ends_the_connection",
            "test_sync.py::test_peer_that_refuses_ends_the_connection_with_its_reason",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "When called from the client side, SSL_renegotiate_abbreviated() works in the "
        "same was as SSL_renegotiate() except that OpenSSL will attempt to resume the "
        "session associated with the current connection in the new handshake.",
        met_by=("py_renegotiate_abbreviated", "ku_schedule_renegotiation"),
        tests=(
            "test_renegotiation.py::"
            "test_client_renegotiate_abbreviated_resumes_the_session",
            "test_renegotiation.py::test_client_call_sends_nothing",
            "test_renegotiation.py::test_client_begins_at_the_next_io",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "When called from the server side, SSL_renegotiate() and "
        "SSL_renegotiate_abbreviated() behave identically.",
        met_by=("begin_renegotiation",),
        tests=(
            "test_renegotiation.py::test_server_call_schedules_a_request",
            "test_renegotiation.py::test_client_follows_a_request_by_resuming",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "They both schedule a request for a new handshake to be sent to the client.",
        met_by=("ku_schedule_renegotiation",),
        tests=("test_renegotiation.py::test_server_call_schedules_a_request",),
    ),
    Requirement(
        "DESCRIPTION",
        "The next time an IO operation is performed then the same checks as on the "
        "client side are performed and then, if appropriate, the request is sent.",
        met_by=(OPENSSL, "renegotiation_state"),
        tests=(
            "test_renegotiation.py::test_a_server_asks_at_the_next_io",
            "test_renegotiation.py::test_unread_data_is_no_obstacle_on_a_server",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "The client may or may not respond with a new handshake and it may or may not "
        "attempt to resume an existing session.",
        met_by=(OPENSSL,),
        tests=(
            "test_renegotiation.py::"
            "test_server_pending_stays_until_the_client_has_followed",
            "test_renegotiation.py::test_client_follows_a_request_by_resuming",
            "test_renegotiation.py::test_server_may_decline_to_resume",
        ),
    ),
    Requirement(
        "DESCRIPTION",
        "If a new handshake is started then this will be handled transparently by "
        "calling any OpenSSL IO function.",
        met_by=(OPENSSL, "advance_step"),
        tests=("test_renegotiation.py::test_reading_takes_up_what_the_peer_has_begun",),
        reason="Any function goes on with it, but only one that reads takes it up: "
        "SSL_write() and SSL_do_handshake() pass it by.",
    ),
    Requirement(
        "DESCRIPTION",
        "If an OpenSSL client receives a renegotiation request from a server then "
        "again this will be handled transparently through calling any OpenSSL IO "
        "function.",
        met_by=(OPENSSL, "advance_step"),
        tests=(
            "test_renegotiation.py::test_reading_takes_up_what_the_peer_has_begun",
            "test_renegotiation.py::"
            "test_client_pending_from_the_servers_request_to_the_end",
        ),
        reason="As before: only a function that reads takes it up.",
    ),
    Requirement(
        "DESCRIPTION",
        "For a TLS connection the client will attempt to resume the current session "
        "in the new handshake.",
        met_by=(OPENSSL,),
        tests=("test_renegotiation.py::test_client_follows_a_request_by_resuming",),
    ),
    Requirement(
        "DESCRIPTION",
        "For historical reasons, DTLS clients will not attempt to resume the session "
        "in the new handshake.",
        reason=NOT_APPLICABLE + "the ssl module makes no DTLS connections.",
    ),
    Requirement(
        "DESCRIPTION",
        "The SSL_renegotiate_pending() function returns 1 if a renegotiation or "
        "renegotiation request has been scheduled but not yet acted on, or 0 "
        "otherwise.",
        met_by=("py_renegotiate_pending", "renegotiate_pending_step"),
        tests=(
            "test_renegotiation.py::test_client_call_sends_nothing",
            "test_renegotiation.py::test_server_call_schedules_a_request",
            "test_renegotiation.py::"
            "test_client_pending_from_the_servers_request_to_the_end",
            "test_renegotiation.py::"
            "test_server_pending_stays_until_the_client_has_followed",
        ),
        reason='"Acted on" means, in OpenSSL and so here, that the new handshake has '
        "been completed.",
    ),
    Requirement(
        "USAGE WITH QUIC",
        "SSL_key_update() can also be used to perform a key update when using QUIC.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "The function must be called on a QUIC connection SSL object.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "This is normally done automatically when needed.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "Since a locally initiated QUIC key update always causes a peer to also "
        "trigger a key update, passing SSL_KEY_UPDATE_NOT_REQUESTED as updatetype has "
        "the same effect as passing SSL_KEY_UPDATE_REQUESTED.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "The QUIC connection must have been fully established before a key update can "
        "be performed, and other QUIC protocol rules govern how frequently QUIC key "
        "update can be performed.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "SSL_key_update() will fail if these requirements are not met.",
        reason=QUIC,
    ),
    Requirement(
        "USAGE WITH QUIC",
        "Because QUIC key updates are always handled immediately, "
        "SSL_get_key_update_type() always returns SSL_KEY_UPDATE_NONE when called on a "
        "QUIC connection SSL object.",
        reason=QUIC,
    ),
    Requirement(
        "RETURN VALUES",
        "SSL_key_update(), SSL_renegotiate() and SSL_renegotiate_abbreviated() return "
        "1 on success or 0 on error.",
        met_by=("ku_scheduled",),
        tests=(
            "test_libssl.py::test_openssls_refusal_looks_as_the_ssl_modules",
            "test_libssl.py::test_openssls_refusal_that_may_pass_is_not_now",
        ),
        reason="In Python: None, or an exception that names the reason.",
    ),
    Requirement(
        "RETURN VALUES",
        "SSL_get_key_update_type() returns the update type of the pending key update "
        "operation or SSL_KEY_UPDATE_NONE if there is none.",
        met_by=("py_get_key_update_type",),
        tests=(
            "test_key_update.py::test_type_is_the_pending_one_until_it_is_performed",
            "test_key_update.py::test_type_is_none_when_nothing_is_pending",
        ),
        reason="In Python: a member of KeyUpdateType.",
    ),
    Requirement(
        "RETURN VALUES",
        "SSL_renegotiate_pending() returns 1 if a renegotiation or renegotiation "
        "request has been scheduled but not yet acted on, or 0 otherwise.",
        met_by=("returning_bool",),
        tests=(
            "test_renegotiation.py::test_client_call_sends_nothing",
            "test_renegotiation.py::test_pending_is_false_on_tls13",
        ),
        reason="In Python: a bool.",
    ),
    Requirement(
        "HISTORY",
        "The SSL_key_update() and SSL_get_key_update_type() functions were added in "
        "OpenSSL 1.1.1.",
        met_by=("missing_controls",),
        tests=("test_libssl.py::test_missing_function_is_not_implemented",),
        reason="A library that lacks a function lacks that call alone.",
    ),
]
