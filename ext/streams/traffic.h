/* What goes between OpenSSL's memory and the socket, and who may carry it: the part
   of the pump (pump.h) below OpenSSL. */
#ifndef PYKEYUPDATE_TRAFFIC_H
#define PYKEYUPDATE_TRAFFIC_H

#include "streams/threads.h"

/* Send all that OpenSSL has written; or as far as the socket takes it at once, unless
   another thread sends. */
enum ku_progress ku_traffic_send(struct ku_call *call);
void ku_traffic_flush(struct ku_call *call);

/* How much OpenSSL has written that has not been sent; and could this call send it? */
size_t ku_traffic_output_left(const struct ku_call *call);
int ku_traffic_can_send(const struct ku_call *call);

/* How much to receive: no byte more than ends the record that has begun, or its
   header; also the next header, where this one is surely of data (behind the peer's
   close_notify may be what is not TLS, or another TLS); or all but that the last byte
   of what may be data is only looked at. */
enum ku_reach { KU_EXACTLY, KU_AHEAD, KU_KEEPING };

/* Receive once, with the role. */
enum ku_progress ku_traffic_receive(struct ku_call *call, enum ku_reach reach);

/* Take the byte out of the socket that KU_KEEPING has left there. */
void ku_traffic_take_kept_byte(struct ku_call *call);

#endif
