// Memory and text without a C library.
#pragma once

#include <linux/mman.h>
#include <stddef.h>
#include <stdint.h>

#include "system_call.h"

enum { CHUNK = 65536 };

// Large or rarely used variables are behind all others, so that a start touches few pages.
#define APART __attribute__((section(".bss.apart")))

static size_t length_of(const char *text)
{
	size_t length = 0;

	while (text[length])
		length++;
	return length;
}

static int is_same(const char *one, const char *other, size_t length)
{
	for (size_t i = 0; i < length; i++)
		if (one[i] != other[i])
			return 0;
	return 1;
}

static void copy(void *target, const void *source, size_t length)
{
	char *to = target;
	const char *from = source;

	if (to <= from)
		for (size_t i = 0; i < length; i++)
			to[i] = from[i];
	else
		while (length-- > 0)
			to[length] = from[length];
}

// Write at least `least` digits of a number in `base`, without a NUL. Returns their number.
static size_t write_digits(char *to, uint64_t number, unsigned int base, size_t least)
{
	char digits[24];
	size_t count = 0, i;

	do
		digits[count++] = "0123456789abcdef"[number % base];
	while ((number /= base) > 0);
	for (i = 0; i + count < least; i++)
		to[i] = '0';
	while (count > 0)
		to[i++] = digits[--count];
	return i;
}

// Return new pages, or NULL. The exec releases them.
static void *new_pages(size_t size)
{
	const long pages = call_six(__NR_mmap, 0, (long)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return pages < 0 && pages > -4096 ? NULL : (void *)pages;
}

// Return memory that lasts until the exec, or NULL.
static void *new_memory(size_t size)
{
	static _Alignas(4096) char first[8192] APART; // enough for most plans, whose parts share pages here
	static char *next;
	static size_t left;
	char *found;

	if (!next) {
		next = first;
		left = sizeof first;
	}
	size = (size + 15) & ~(size_t)15;
	if (size > left) {
		const size_t room = size > CHUNK ? size : CHUNK;

		found = new_pages(room);
		if (!found)
			return NULL;
		next = found;
		left = room;
	}
	found = next;
	next += size;
	left -= size;
	return found;
}
