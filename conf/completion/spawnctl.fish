# Completion of spawnctl for fish.  What may follow is known to spawnctl itself, the names of services with it.

function __spawnctl_complete
    set -l words (commandline -opc)
    set -l program spawnctl
    # a path that is being typed may lead to anything: it is not executed before Enter is pressed
    if test "$words[1]" != spawnctl
        set program /usr/lib/spawn-supervisor/bin/spawnctl
    end
    command $program --complete $words[2..-1] (commandline -ct) 2>/dev/null
end

complete -c spawnctl -f -a '(__spawnctl_complete)'
complete -c spawnctl -l socket -r -F -d "the supervisor's control socket"
