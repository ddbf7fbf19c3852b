// The close of connections, which never waits for anybody.
//
// The last close of a Unix connection also frees the descriptors that its client has sent and nobody has received. That
// may wait for ever: for the peer of a socket with SO_LINGER (socket(7)), or for the server of a FUSE file. So a child
// has such a connection last, and closes it by its end, at which sockets do not linger: `docs/design/accept.md`.
#pragma once

#include "access.h"
#include "sharing_process.h"

enum {
	MOST_LOOKS = 32, // into one connection, which may be full of tiny messages
	MOST_CLOSERS = 64,
	MOST_LEFT_OPEN = 64, // beyond which no client is accepted
	ROOM_LEFT_OPEN = 4 * MOST_LEFT_OPEN, // for those that are held and refused then, too
	STACK = 16384,
	CREDENTIALS_PART = 32, // bytes of a message
	MSG_PEEK_ = 2,
	MSG_CTRUNC_ = 8,
	SHUT_RDWR_ = 2,
	SIGKILL_ = 9,
	SIGCHLD_ = 17,
	SOCK_STREAM_ = 1,
	SOCK_NONBLOCK_ = 04000,
	SOCK_CLOEXEC_ = 02000000,
};

#define LONGEST_HOLD SECOND // for a child to wait for the signal that ends it
#define CLOSE_AGAIN (SECOND / 5) // after no child could be made

static _Alignas(16) char stack[STACK] APART;
static char unused_data[16384] APART;

static struct {
	int fd; // that a child which is being made is for
	volatile int pid; // of that child
	int32_t pids[MOST_CLOSERS]; // children that have not ended; 0 is none
	int left_open[ROOM_LEFT_OPEN]; // connections that wait for a child
	uint32_t count; // of these
	int64_t again;
} closers APART;

static void set_option(int connection, int level, int option, int value)
{
	call_six(__NR_setsockopt, connection, level, option, (long)&value, sizeof value, 0);
}

static int type_of(int connection)
{
	int type = 0;
	uint32_t size = sizeof type;

	call_six(__NR_getsockopt, connection, SOL_SOCKET, SO_TYPE, (long)&type, (long)&size, 0);
	return type;
}

// Whether a Unix connection may have descriptors in its queue. Ends it, and takes out the data before them. A peek has
// references of its own to descriptors, so it frees none. Packets have credentials, which tell an empty one from the end
// of file, and for which alone there is room. A stream has no empty messages, and would have credentials at its end.
static int may_hold_others(int connection)
{
	const int is_stream = type_of(connection) == SOCK_STREAM_;

	call(__NR_shutdown, connection, SHUT_RDWR_, 0, 0); // the client can send no more
	set_option(connection, SOL_SOCKET, SO_PASSCRED, !is_stream);
	set_option(connection, SOL_SOCKET, SO_OOBINLINE, 1); // else a peek skips a byte out of band
	for (int i = 0; i < MOST_LOOKS; i++) {
		_Alignas(8) char control[CREDENTIALS_PART];
		struct block block = { unused_data, sizeof unused_data };
		struct message message = { NULL, 0, &block, 1, control, is_stream ? 0 : sizeof control, 0 };
		const long size = call(__NR_recvmsg, connection, (long)&message, MSG_PEEK_ | MSG_DONTWAIT_, 0);

		if (size == -ECONNRESET)
			continue; // told once, before the data that the client has left
		if (size < 0)
			return size != -EAGAIN;
		if (message.flags & MSG_CTRUNC_)
			return 1;
		if (size == 0 && message.control_size == 0)
			return 0;
		call_six(__NR_recvfrom, connection, (long)unused_data, size + !size, MSG_DONTWAIT_, 0, 0);
	}
	return 1;
}

// In a child that shares our memory: close all descriptors but one. None of these closes is the last one, as we wait.
static void keep_one(int fd)
{
	if (fd > LOG + 1)
		call(__NR_close_range, LOG + 1, fd - 1, 0, 0);
	call(__NR_close_range, fd + 1, UINT32_MAX, 0, 0);
}

// In such a child: leave a child of the acceptor that has the connection.
static _Noreturn void leave_closer(void)
{
	const struct __kernel_timespec time = { LONGEST_HOLD / SECOND, 0 };

	keep_one(closers.fd);
	closers.pid = (int)call_six(__NR_clone, CLONE_PARENT | SIGCHLD_, 0, 0, 0, 0, 0);
	if (closers.pid == 0)
		call_six(__NR_ppoll, 0, 0, (long)&time, 0, 0, 0);
	leave(0);
}

// In such a child: accept a client, and end.
static _Noreturn void drop_one(void)
{
	keep_one(closers.fd);
	call(__NR_accept4, closers.fd, 0, 0, SOCK_CLOEXEC_);
	leave(0);
}

// Return a free place for the pid of a child, or MOST_CLOSERS.
static uint32_t place_of_closer(void)
{
	uint32_t place = 0;

	while (place < MOST_CLOSERS && closers.pids[place])
		place++;
	return place;
}

// Have a child close a connection. Returns whether there is one.
static int close_elsewhere(int connection)
{
	const uint32_t place = place_of_closer();
	long pid;

	if (place == MOST_CLOSERS)
		return 0;
	closers.fd = connection;
	closers.pid = 0;
	pid = start_sharing(leave_closer, stack + sizeof stack);
	if (pid > 0)
		call(__NR_wait4, pid, 0, 0, 0);
	if (closers.pid <= 0)
		return 0;
	closers.pids[place] = closers.pid;
	close_fd(connection);
	call(__NR_kill, closers.pid, SIGKILL_, 0, 0);
	return 1;
}

// Have a child, which has free descriptors, accept and close a client.
static void drop_client(int listener)
{
	const uint32_t place = place_of_closer();
	long pid;

	if (place == MOST_CLOSERS)
		return;
	closers.fd = listener;
	pid = start_sharing(drop_one, stack + sizeof stack);
	if (pid > 0)
		closers.pids[place] = (int)pid;
}

// Note the end of a child that is no session.
static void end_closer(long pid)
{
	for (uint32_t i = 0; i < MOST_CLOSERS; i++)
		if (closers.pids[i] == pid) {
			closers.pids[i] = 0;
			closers.again = 0;
		}
}

// Close the connections that have waited for a child. Returns the time for another try.
static int64_t close_left_open(int64_t now)
{
	while (closers.count > 0 && closers.again <= now)
		if (close_elsewhere(closers.left_open[closers.count - 1]))
			closers.count--;
		else
			closers.again = now + CLOSE_AGAIN;
	return closers.count > 0 ? closers.again : INT64_MAX;
}

// Close a connection that no session has.
static void close_connection(int connection, int is_unix)
{
	if (!is_unix || !may_hold_others(connection))
		close_fd(connection);
	else if (!close_elsewhere(connection))
		closers.left_open[closers.count++] = connection;
}

// A Unix connection leaves the acceptor before its session begins, as the session may have ended by the time of a close
// after that. On its way it is in a queue of ours.
static int way[2];

struct connection_part { // struct cmsghdr
	uint64_t size;
	int level, type, fd, unused;
};

static void make_way(void)
{
	must(call(__NR_socketpair, AF_UNIX_, SOCK_DGRAM_ | SOCK_CLOEXEC_ | SOCK_NONBLOCK_, 0, (long)way));
}

// Send a connection on its way, and close it here. Returns a negative errno if that cannot be.
static long send_off(int connection)
{
	struct connection_part part = { 16 + sizeof(int), SOL_SOCKET_, SCM_RIGHTS_, connection, 0 };
	struct block block = { " ", 1 };
	const struct message message = { NULL, 0, &block, 1, &part, sizeof part, 0 };
	const long result = call(__NR_sendmsg, way[0], (long)&message, MSG_NOSIGNAL_, 0);

	if (result > 0)
		close_fd(connection);
	return result;
}

// Take the connection that is on its way. Returns a negative errno if there is none.
static long take_arrived(void)
{
	struct connection_part part = { 0 };
	char byte;
	struct block block = { &byte, 1 };
	struct message message = { NULL, 0, &block, 1, &part, sizeof part, 0 };
	const long result = call(__NR_recvmsg, way[1], (long)&message, MSG_CMSG_CLOEXEC_, 0);

	if (result < 0)
		return result;
	return message.control_size > 0 ? part.fd : -EMFILE;
}
