# Everything that an installation has beside its environment: unit, completion, documents, man pages, examples and,
# with $PLATFORM, the files of the platform.  Needs places.sh, and is run in the checkout.
# shellcheck shell=sh disable=SC2154

keep='' refresh='' untouched='' # for configuration: see place_platform
index=README.md                 # the name that a README.md gets
up=''                           # where a link to the folder above leads

# place FILE... FOLDER: copy files, with the paths of this installation in them.
#
# With $keep, a file stays that is there, unless it is $untouched, so as an earlier installation has put it there.  With
# $refresh, no file is new.
place() {
	for folder; do :; done
	while [ $# -gt 1 ]; do
		name=${1##*/}
		if [ "$name" = README.md ]; then name=$index; fi
		target=$DESTDIR$folder/$name
		if [ ! -e "$target" ]; then wanted=${refresh:+no}; else wanted=${keep:+no}; fi
		case $untouched in *"$target|"*) wanted=yes ;; esac
		if [ "$wanted" != no ]; then
			mkdir -p "${target%/*}"
			with_own_paths "$1" > "$target"
		fi
		shift
	done
}

with_own_paths() {
	sed -e "s#/usr\(/local\)\?/lib/spawn-supervisor#$home_of#g" \
		-e "s#/usr\(/local\)\?/share/spawn-supervisor#$share/spawn-supervisor#g" \
		-e "s#/usr\(/local\)\?/share/doc/spawn-supervisor#$documents#g" \
		-e "s#/usr\(/local\)\?/bin/spawn\(d\|ctl\|-enter\)#$PREFIX/bin/spawn\2#g" \
		-e "s#/etc/\(spawnd\|cm4all\)#$SYSCONFDIR/\1#g" \
		-e "s#conf/systemd/spawnd.service.d/#$documents/#g" \
		-e "s#conf/\(examples/\)\?\(services.d\|reaper/\)#$examples_of/\2#g" \
		-e "s#conf/examples#$examples_of#g" \
		-e 's#](docs/README.md#](index.md#g' -e 's#](docs/#](#g' -e "s#](\.\./#]($up#g" "$1"
}

place_documents() {
	place README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md conf/systemd/spawnd.service.d/notify-reload.conf "$documents"
	index=index.md
	place docs/*.md "$documents"
	up=../
	place docs/design/*.md "$documents/design"
	place docs/lua/*.md "$documents/lua"
	up=''
}

# From the documents as they are installed, so with the paths of this installation.
place_man_pages() {
	if command -v pandoc > /dev/null; then
		tools/man "$DESTDIR$share/man" "$DESTDIR$documents"
	else
		echo 'Without man pages: they need the Debian package pandoc'
	fi
}

place_examples() {
	examples=$DESTDIR$examples_of
	for file in "$DESTDIR$definitions"/*.lua "$DESTDIR$SYSCONFDIR/cm4all/spawn/reaper.lua"; do
		for shipped in "$examples/services.d/${file##*/}" "$examples/reaper/${file##*/}"; do
			if cmp -s "$file" "$shipped"; then untouched="$untouched$file|"; fi
		done
	done
	rm -rf "$examples"
	mkdir -p "$examples"
	cp -R conf/examples/. "$examples/"
	place conf/examples/*.lua "$examples_of"
	place conf/services.d/*.lua "$examples_of/services.d"
	place conf/reaper.lua "$examples_of/reaper"
	place conf/systemd/spawnd.service.d/cm4all-names.conf "$examples_of/systemd"
}

place_platform() {
	place conf/systemd/*.slice "$units"
	place conf/sysusers.d/*.conf "$PREFIX/lib/sysusers.d"
	place conf/tmpfiles.d/*.conf "$PREFIX/lib/tmpfiles.d"
	keep=yes
	if [ -z "$PLATFORM" ]; then refresh=yes; fi
	place conf/services.d/*.lua "$definitions"
	place conf/reaper.lua "$SYSCONFDIR/cm4all/spawn"
}

place_files() {
	place conf/systemd/spawnd.service "$units"
	place conf/completion/spawnctl.bash "$share/bash-completion/completions"
	place conf/completion/_spawnctl "$share/zsh/site-functions"
	place conf/completion/spawnctl.fish "$share/fish/vendor_completions.d"
	place_documents
	place_man_pages
	place_examples
	platform=$PLATFORM
	if [ -e "$DESTDIR$PREFIX/lib/sysusers.d/spawn-supervisor.conf" ]; then platform=yes; fi
	if [ -n "$platform" ]; then place_platform; fi
}
