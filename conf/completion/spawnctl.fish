# Completion of spawnctl for fish.  What may follow is known to spawnctl itself, the names of services with it.

function __spawnctl_complete
    set -l words (commandline -opc)
    $words[1] --complete $words[2..-1] (commandline -ct) 2>/dev/null
end

complete -c spawnctl -f -a '(__spawnctl_complete)'
complete -c spawnctl -l socket -r -F -d "the supervisor's control socket"
