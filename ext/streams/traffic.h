/* Carries bytes between OpenSSL's memory and the socket, and decides which thread may:
   the part of the pump (pump.h) below OpenSSL.  All of it is called in the monitor. */
#ifndef PYKEYUPDATE_TRAFFIC_H
#define PYKEYUPDATE_TRAFFIC_H

#include "streams/threads.h"

/* ku_traffic_send() sends everything that OpenSSL has written.  ku_traffic_flush()
   sends only as far as the socket takes it at once, and only if no other thread is
   sending. */
enum ku_progress ku_traffic_send(struct ku_call *call);
void ku_traffic_flush(struct ku_call *call);

/* Between these, what OpenSSL writes goes into the socket without a copy and without
   waiting, if nothing is to be sent before it: no other thread sends, and no message of
   a handshake goes with it.  What the socket does not take is left to
   ku_traffic_send(), and so is the error if sending fails. */
void ku_traffic_begin_direct(struct ku_call *call);
void ku_traffic_end_direct(struct ku_call *call);

/* How many bytes has OpenSSL written that have not been sent?  And could this call send
   them? */
size_t ku_traffic_output_left(const struct ku_call *call);
int ku_traffic_can_send(const struct ku_call *call);

/* How much to receive.

   KU_EXACTLY: to the end of the record that has begun, or of its header.

   KU_AHEAD: the next header too, if this record certainly has data.  (Behind the peer's
   close_notify there may be what is not TLS, or another TLS connection.)

   KU_KEEPING: as KU_EXACTLY, but the last byte of what may be data is only peeked
   at. */
enum ku_reach { KU_EXACTLY, KU_AHEAD, KU_KEEPING };

/* Receive once.  The call has the role of the receiver. */
enum ku_progress ku_traffic_receive(struct ku_call *call, enum ku_reach reach);

/* Between these, OpenSSL may receive the rest of the record that has begun into its own
   memory, without a copy and without waiting.  The call has the role of the receiver.
   The first returns 0 if OpenSSL may not, or has tried; an error that the socket reports
   is left to ku_traffic_receive(). */
int ku_traffic_begin_receiving(struct ku_call *call);
void ku_traffic_end_receiving(struct ku_call *call);

/* Take the byte that KU_KEEPING has left in the socket. */
void ku_traffic_take_kept_byte(struct ku_call *call);

#endif
