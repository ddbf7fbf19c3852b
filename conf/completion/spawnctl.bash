# Completion of spawnctl for bash.  What may follow is known to spawnctl itself, the names of services with it.

_spawnctl() {
    local line=${COMP_LINE:0:COMP_POINT} command=spawnctl word kept= candidate
    local -a words
    # a path that is being typed may lead to anything: it is not executed before Enter is pressed
    if [[ $1 != spawnctl ]]; then
        command=/usr/lib/spawn-supervisor/bin/spawnctl
    fi
    # not COMP_WORDS: those end at each @ and =, too
    read -ra words <<<"$line"
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    word=${words[-1]}
    COMPREPLY=()
    if [[ $word == --socket=* || ${words[-2]} == --socket ]]; then
        compopt -o default
        return
    fi
    if [[ $word == *@* && $COMP_WORDBREAKS == *@* ]]; then
        kept=${word%"@${word##*@}"} # for bash the word begins with the last @: what is before it stays on the line
    fi
    while IFS=$'\t' read -r candidate _; do
        if [[ $candidate == "$word"* ]]; then
            COMPREPLY+=("${candidate#"$kept"}")
        fi
    done < <(command -- "$command" --complete "${words[@]:1}" 2>/dev/null)
}

complete -F _spawnctl spawnctl
