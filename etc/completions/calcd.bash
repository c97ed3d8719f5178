# Completion of calcd for bash. It needs the package bash-completion.

_calcd() {
    local cur prev words cword split
    _init_completion -s -n : || return

    # Of letters that share a dash, the last takes the value.
    [[ $prev == -[!-]* ]] && prev=-${prev: -1}
    case $prev in
        -c | --config | --pidfile | --tls-certificate | --tls-client-ca | --tls-client-crl | --tls-key)
            _filedir
            ;;
        -s | --signal)
            COMPREPLY=($(compgen -W 'stop reload reopen status' -- "$cur"))
            ;;
        -l | --listen)
            compopt -o nospace
            COMPREPLY=($(compgen -W 'tcp:// tls:// udp:// unix:///' -- "$cur"))
            __ltrim_colon_completions "$cur"
            ;;
        --metrics)
            compopt -o nospace
            COMPREPLY=($(compgen -W 'http://localhost:9112' -- "$cur"))
            __ltrim_colon_completions "$cur"
            ;;
        --language)
            COMPREPLY=($(compgen -W 'en pt' -- "$cur"))
            ;;
        --log-level)
            COMPREPLY=($(compgen -W 'debug info warning error' -- "$cur"))
            ;;
        --log-to)
            COMPREPLY=($(compgen -W 'stderr syslog' -- "$cur"))
            _filedir
            ;;
        --notation)
            COMPREPLY=($(compgen -W 'plain scientific' -- "$cur"))
            ;;
        --reuse-port)
            COMPREPLY=($(compgen -W 'yes no' -- "$cur"))
            ;;
        --rounding)
            COMPREPLY=($(compgen -W 'half-even half-up half-down up down ceiling floor 05up' \
                -- "$cur"))
            ;;
        --workers)
            COMPREPLY=($(compgen -W auto -- "$cur"))
            ;;
        --user)
            COMPREPLY=($(compgen -u -- "$cur"))
            ;;
        --group)
            COMPREPLY=($(compgen -g -- "$cur"))
            ;;
        --allow | --*-timeout | --max-connections | --max-connections-per-host | --max-line | \
            --message-wait | --precision | --proxy-protocol-from) ;;
        *)
            COMPREPLY=($(compgen -W '
                -c --config -d --daemon -h --help -l --listen -s --signal -t --test -V --version
                --allow --drain-timeout --group --idle-timeout --language --line-cpu-timeout
                --line-timeout --log-level --log-to --max-connections --max-connections-per-host
                --max-line --message-wait --metrics --notation --pidfile --precision
                --proxy-protocol-from --reuse-port --rounding --send-timeout --tls-certificate
                --tls-client-ca --tls-client-crl --tls-key --user --workers' -- "$cur"))
            ;;
    esac
} &&
    complete -F _calcd calcd
