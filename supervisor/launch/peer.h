// Clients and their addresses.
#pragma once

#include <linux/in.h>
#include <linux/in6.h>
#include <linux/socket.h>
#include <linux/un.h>
#include <asm/socket.h>

#include "carry_out.h"
#include "table.h"

enum {
	AF_INET6_ = 10,
	MAPPED = 12, // bytes before the IPv4 address in an IPv6 address
	LONGEST_ADDRESS = 48, // bytes of text
};

struct credentials { // struct ucred
	int32_t pid;
	uint32_t uid, gid;
};

union address {
	uint16_t family;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un un;
};

static uint16_t port_of(uint16_t port)
{
	return (uint16_t)(port >> 8 | port << 8);
}

static int is_mapped(const uint8_t *address)
{
	static const char prefix[MAPPED] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (char)0xff, (char)0xff };

	return is_same((const char *)address, prefix, MAPPED);
}

static void take_address(struct peer *peer, const union address *address)
{
	memset(peer, 0, sizeof *peer);
	if (address->family == AF_INET_) {
		peer->address[10] = peer->address[11] = 0xff;
		copy(peer->address + MAPPED, &address->v4.sin_addr, 4);
		peer->family = V4;
		peer->port = port_of(address->v4.sin_port);
	} else if (address->family == AF_INET6_) {
		copy(peer->address, &address->v6.sin6_addr, 16);
		peer->family = is_mapped(peer->address) ? V4 : V6;
		peer->port = port_of(address->v6.sin6_port);
	}
}

static void take_peer(struct peer *peer, int connection, const union address *address)
{
	struct credentials credentials;
	uint32_t size = sizeof credentials;

	take_address(peer, address);
	if (address->family != AF_UNIX_)
		return;
	peer->family = UNIX;
	peer->uid = peer->gid = UINT32_MAX; // nobody, where a security module keeps it from us
	if (call_six(__NR_getsockopt, connection, SOL_SOCKET, SO_PEERCRED, (long)&credentials, (long)&size, 0) < 0)
		return;
	peer->uid = credentials.uid;
	peer->gid = credentials.gid;
	peer->pid = credentials.pid;
}

// Write the key of those that count as one source: a network, or a user.
static void make_key(uint8_t *key, const struct peer *peer, unsigned int v4_bits, unsigned int v6_bits)
{
	const unsigned int bits = peer->family == V4 ? 8 * MAPPED + v4_bits : v6_bits;

	memset(key, 0, KEY);
	if (peer->family == UNIX) {
		key[0] = 0xff; // multicast, which is no client
		copy(key + 4, &peer->uid, sizeof peer->uid);
		return;
	}
	for (unsigned int i = 0; i < 16 && 8 * i < bits; i++)
		key[i] = (uint8_t)(peer->address[i] & (bits - 8 * i >= 8 ? 0xff : 0xff00 >> (bits - 8 * i)));
}

static size_t write_v4(char *to, const uint8_t *bytes)
{
	size_t length = 0;

	for (int i = 0; i < 4; i++) {
		if (i > 0)
			to[length++] = '.';
		length += write_digits(to + length, bytes[i], 10, 1);
	}
	return length;
}

static unsigned int group(const uint8_t *address, int number)
{
	return (unsigned int)address[2 * number] << 8 | address[2 * number + 1];
}

// Find the longest run of at least two groups that are 0: RFC 5952. Returns its length.
static int longest_run(const uint8_t *address, int *begin)
{
	int longest = 1;

	for (int i = 0; i < 8; i++) {
		int length = 0;

		while (i + length < 8 && !group(address, i + length))
			length++;
		if (length > longest) {
			longest = length;
			*begin = i;
		}
	}
	return longest > 1 ? longest : 0;
}

// Write an address in at most LONGEST_ADDRESS bytes, without a NUL. Returns its length.
static size_t write_address(char *to, const struct peer *peer)
{
	size_t length = 0;
	int begin = 8, run;

	if (peer->family == V4)
		return write_v4(to, peer->address + MAPPED);
	run = longest_run(peer->address, &begin);
	for (int i = 0; i < 8; i++) {
		if (run && i == begin) {
			to[length++] = ':';
			to[length++] = ':';
			i += run - 1;
			continue;
		}
		if (length > 0 && to[length - 1] != ':')
			to[length++] = ':';
		length += write_digits(to + length, group(peer->address, i), 16, 1);
	}
	return length;
}
