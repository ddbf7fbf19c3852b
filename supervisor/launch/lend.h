// Opening a path, where links of other users are followed only with the rights of the service's user.
#pragma once

#include <linux/prctl.h>

#include "walk.h"

struct capabilities {
	struct __user_cap_header_struct header;
	struct __user_cap_data_struct sets[2];
};

static long get_capabilities(struct capabilities *all)
{
	all->header = (struct __user_cap_header_struct){ _LINUX_CAPABILITY_VERSION_3, 0 };
	return call(__NR_capget, (long)&all->header, (long)all->sets, 0, 0);
}

static long set_capabilities(struct capabilities *all)
{
	all->header = (struct __user_cap_header_struct){ _LINUX_CAPABILITY_VERSION_3, 0 };
	return call(__NR_capset, (long)&all->header, (long)all->sets, 0, 0);
}

static long set_groups(const uint64_t *gids, uint32_t count)
{
	static uint32_t groups[NGROUPS_MAX] APART;

	for (uint32_t i = 0; i < count; i++)
		groups[i] = (uint32_t)gids[i];
	return call(__NR_setgroups, count, (long)groups, 0, 0);
}

// Set the id for file access, and check it, because the kernel does not report a refusal.
static long have_id(long setter, uint32_t id)
{
	call(setter, id, 0, 0, 0);
	return (uint32_t)call(setter, UINT32_MAX, 0, 0, 0) == id ? 0 : -EPERM;
}

static long open_beyond(int is_folder)
{
	struct open_how how = { .flags = HOLD, .resolve = RESOLVE_NO_MAGICLINKS };
	size_t length = length_of(walk.rest);
	long held;

	// O_PATH does not check the permission to enter the folder itself
	if (is_folder && length + 3 < sizeof walk.rest)
		copy(walk.rest + length, "/.", 3);
	held = call(__NR_openat2, walk.folder, (long)walk.rest, (long)&how, sizeof how);
	if (held < 0)
		return fails(held);
	if (is_proc((int)held)) {
		close_fd(held);
		fails(-EACCES);
		walk.failure.about = "proc";
		return -EACCES;
	}
	return is_folder ? held : open_held((int)held);
}

static long open_with_rights(const struct rights *rights, int is_folder)
{
	static uint32_t groups[MOST_GROUPS] APART;
	struct capabilities before, none;
	const long count = call(__NR_getgroups, MOST_GROUPS, (long)groups, 0, 0);
	// the kernel makes a process undumpable that changes such an id
	const long dumpable = call(__NR_prctl, PR_GET_DUMPABLE, 0, 0, 0);
	long result, found;

	if (count < 0 || (result = get_capabilities(&before)) < 0)
		return fails(count < 0 ? count : result);
	none = before;
	none.sets[0].effective = none.sets[1].effective = 0;
	if ((result = set_groups(rights->gids, rights->count)) < 0 ||
	    (result = have_id(__NR_setfsgid, rights->gid)) < 0 || (result = have_id(__NR_setfsuid, rights->uid)) < 0 ||
	    (result = set_capabilities(&none)) < 0)
		return fails(result); // the process ends
	found = open_beyond(is_folder);
	if ((result = set_capabilities(&before)) < 0 || (result = have_id(__NR_setfsuid, 0)) < 0 ||
	    (result = have_id(__NR_setfsgid, (uint32_t)call(__NR_getegid, 0, 0, 0, 0))) < 0 ||
	    (result = call(__NR_setgroups, count, (long)groups, 0, 0)) < 0)
		return fails(result);
	call(__NR_prctl, PR_SET_DUMPABLE, dumpable, 0, 0);
	return found;
}

// Open a folder with O_PATH, or a file for reading. Returns a negative errno on failure, which `walk.failure`
// describes. A FIFO without a writer counts as an empty file.
static long open_as(const char *path, const struct rights *rights, int is_folder)
{
	const size_t length = length_of(path);
	long result;

	if (length + 2 > PATH_MAX)
		return fails(-ENAMETOOLONG);
	walk.rights = rights;
	walk.follows_all = (rights->are_given && rights->uid == 0) || call(__NR_geteuid, 0, 0, 0, 0) != 0;
	walk.links_left = MAX_LINKS;
	walk.is_untrusted = 0;
	copy(walk.rest, path, length);
	copy(walk.rest + length, is_folder ? "/" : "", is_folder ? 2 : 1);
	walk.folder = (int)call(__NR_openat, AT_FDCWD, (long)"/", HOLD | O_DIRECTORY, 0);
	if (walk.folder < 0)
		return fails(walk.folder);
	result = enter();
	if (result == 0)
		result = open_found(is_folder);
	if (result < 0 && walk.is_untrusted && rights->are_given)
		result = open_with_rights(rights, is_folder);
	close_fd(walk.folder);
	return result;
}
