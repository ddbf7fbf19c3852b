"""Directives without an equivalent, and those that need none, each with the reason."""

from __future__ import annotations

_SANDBOX = "there is no sandboxing"
_LOG = "the log has no such setting"
_DEVICES = "no service is denied a device"
_TERMINAL = "no service has a terminal"
_NO_CREDENTIALS = "file(…) in fd gives a secret to a service"
_ACTION = "`spawnctl monitor --json` tells of failures and ends"
_CGROUP = "it is no setting of the cgroups here"


def _all(text: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), text)


# Values that switch them off, such as `no`, have nothing to be carried over.
NO_EQUIVALENT: dict[str, str] = {
    **_all(
        _SANDBOX,
        "ProtectSystem ProtectHome PrivateTmp PrivateDevices PrivateNetwork PrivateIPC PrivateUsers PrivateMounts "
        "PrivatePIDs ProtectHostname ProtectClock ProtectKernelTunables ProtectKernelModules ProtectKernelLogs "
        "ProtectControlGroups ProtectProc ProcSubset ReadWritePaths ReadOnlyPaths InaccessiblePaths ExecPaths "
        "NoExecPaths ReadWriteDirectories ReadOnlyDirectories InaccessibleDirectories TemporaryFileSystem BindPaths "
        "BindReadOnlyPaths MountFlags MountAPIVFS MountImages ExtensionImages ExtensionDirectories RootImage "
        "RootEphemeral RootVerity RootHash SystemCallFilter SystemCallArchitectures SystemCallErrorNumber "
        "SystemCallLog RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID "
        "RestrictFileSystems RestrictNetworkInterfaces LockPersonality MemoryDenyWriteExecute MemoryKSM RemoveIPC "
        "IPCNamespacePath SocketBindAllow SocketBindDeny SecureBits AppArmorProfile SELinuxContext "
        "SmackProcessLabel IPAccounting IPIngressFilterPath IPEgressFilterPath BPFProgram NFTSet "
        "PrivateBPF ProtectControlGroupsEx",
    ),
    **_all(_DEVICES, "DeviceAllow DevicePolicy"),
    **_all(
        _LOG,
        "SyslogFacility SyslogLevel SyslogLevelPrefix LogLevelMax LogExtraFields LogRateLimitIntervalSec "
        "LogRateLimitBurst LogFilterPatterns LogNamespace",
    ),
    **_all(_TERMINAL, "TTYPath TTYReset TTYVHangup TTYVTDisallocate TTYColumns TTYRows UtmpIdentifier UtmpMode"),
    **_all(
        _NO_CREDENTIALS,
        "LoadCredential LoadCredentialEncrypted SetCredential SetCredentialEncrypted ImportCredential OpenFile",
    ),
    **_all(
        _ACTION,
        "OnFailure OnSuccess OnFailureJobMode OnSuccessJobMode FailureAction SuccessAction StartLimitAction "
        "FailureActionExitStatus SuccessActionExitStatus RebootArgument JobTimeoutSec JobRunningTimeoutSec "
        "JobTimeoutAction JobTimeoutRebootArgument",
    ),
    **_all(
        _CGROUP,
        "Slice MemoryMin MemoryLow MemoryZSwapMax MemoryZSwapWriteback StartupCPUWeight StartupIOWeight "
        "StartupMemoryMax StartupMemoryHigh StartupMemoryLow StartupMemorySwapMax CPUQuotaPeriodSec AllowedCPUs "
        "StartupAllowedCPUs AllowedMemoryNodes StartupAllowedMemoryNodes IODeviceWeight IOReadBandwidthMax "
        "IOWriteBandwidthMax IOReadIOPSMax IOWriteIOPSMax IODeviceLatencyTargetSec DefaultMemoryMin "
        "DefaultMemoryLow DefaultStartupMemoryLow ManagedOOMSwap ManagedOOMMemoryPressure "
        "ManagedOOMMemoryPressureLimit ManagedOOMMemoryPressureDurationSec ManagedOOMPreference MemoryPressureWatch "
        "MemoryPressureThresholdSec CoredumpReceive CPUShares StartupCPUShares BlockIOWeight StartupBlockIOWeight "
        "BlockIODeviceWeight BlockIOReadBandwidth BlockIOWriteBandwidth DisableControllers Delegate DelegateSubgroup "
        "CoredumpFilter",
    ),
    "CPUSchedulingResetOnFork": "the kernel has children inherit the policy",
    "ExitType": "the end of the main process is that of the service",
    "FileDescriptorStorePreserve": "the store lives as long as spawnd knows the service",
    "FinalKillSignal": "it is always KILL",
    "GuessMainPID": "a pid_file names the daemon, or it is the only process that is left",
    "IPAddressAllow": "only a process for each connection has only_from; rules of nftables limit others",
    "IPAddressDeny": "only a process for each connection has no_access; rules of nftables limit others",
    "IgnoreSIGPIPE": "SIGPIPE has its default effect",
    "JoinsNamespaceOf": _SANDBOX,
    "NUMAMask": "cpu_affinity is all there is",
    "NUMAPolicy": "cpu_affinity is all there is",
    "NonBlocking": "sockets block, unless the program sets them",
    "PAMName": "no service opens a session of PAM",
    "PassEnvironment": "nothing is inherited from spawnd; env has variables",
    "Personality": "programs run as they were built",
    "PropagatesReloadTo": "a reload concerns one service",
    "PropagatesStopTo": "`spawnctl stop --cascade` stops dependants",
    "ReloadPropagatedFrom": "a reload concerns one service",
    "RequiresMountsFor": "a drop-in of spawnd.service orders all services after a mount",
    "RestartForceExitStatus": "restart decides, and no_restart_status makes exceptions",
    "RuntimeMaxSec": "a service runs without a limit of time",
    "RuntimeRandomizedExtraSec": "a service runs without a limit of time",
    "SendSIGHUP": "only stop_signal is sent",
    "StandardInputData": "write the data to a file, stdin = file(…)",
    "StandardInputText": "write the text to a file, stdin = file(…)",
    "StopPropagatedFrom": "`spawnctl stop --cascade` stops dependants",
    "StopWhenUnneeded": "a service on demand with idle_stop ends when nobody uses it",
    "TimeoutAbortSec": "a missed watchdog is a crash, and what is left is killed",
    "TimeoutStartFailureMode": "a start that is late is ended by stop_signal, and KILL",
    "TimeoutStopFailureMode": "a stop that is late ends with KILL",
    "UnsetEnvironment": "nothing is inherited, so only what env and env_file set is there",
    "WantsMountsFor": "a drop-in of spawnd.service orders all services after a mount",
    "WatchdogSignal": "a service that misses its watchdog is killed",
}

# Directives that mean nothing here, or that hold without any key.
NOT_NEEDED: dict[str, str] = {
    "AllowIsolate": "",
    "BusName": "a service is ready as soon as it runs",
    "CPUAccounting": "the cgroup counts",
    "CollectMode": "",
    "DefaultDependencies": "spawnd starts when the system is up",
    "DefaultInstance": "",
    "DeferTrigger": "",
    "IOAccounting": "the cgroup counts",
    "BlockIOAccounting": "the cgroup counts",
    "IgnoreOnIsolate": "",
    "KeyringMode": "each service has a keyring of its own",
    "MemoryAccounting": "the cgroup counts",
    "NotifyAccess": "processes of the service may send messages",
    "OOMPolicy": "the kernel decides, and an end of the main process is a failure",
    "PermissionsStartOnly": "functions run as root",
    "RefuseManualStart": "",
    "RefuseManualStop": "",
    "RootDirectoryStartOnly": "functions run in the root of the host",
    "RuntimeDirectoryMode": "the mode of the directory",
    "StateDirectoryMode": "the mode of the directory",
    "CacheDirectoryMode": "the mode of the directory",
    "LogsDirectoryMode": "the mode of the directory",
    "ConfigurationDirectoryMode": "the mode of the directory",
    "SourcePath": "",
    "SurviveFinalKillSignal": "",
    "TasksAccounting": "the cgroup counts",
}
