//! What is authorised: the lists of Mesos' ACLs, by name.

/// What the objects of an action are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Objects {
    /// Roles; a rule may name all below one as `x/%`.
    Roles,
    /// Users, principals or paths.
    Names,
    /// Nothing that could be named: a rule is for ANY or NONE.
    Whole,
}

macro_rules! actions {
    ($($action:ident $list:literal $field:literal $objects:ident,)*) => {
        /// Something that a principal may be allowed to do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(missing_docs)] // each is what its list says
        pub enum Action { $($action,)* }

        impl Action {
            pub(super) const ALL: &[Self] = &[$(Self::$action,)*];

            /// The name of its list of rules in the ACLs.
            pub fn list(self) -> &'static str {
                match self { $(Self::$action => $list,)* }
            }

            /// The name of the objects in a rule.
            pub(super) fn field(self) -> &'static str {
                match self { $(Self::$action => $field,)* }
            }

            pub(super) fn objects(self) -> Objects {
                match self { $(Self::$action => Objects::$objects,)* }
            }
        }
    };
}

actions! {
    RegisterFramework "register_frameworks" "roles" Roles,
    RunTask "run_tasks" "users" Names,
    ReserveResources "reserve_resources" "roles" Roles,
    UnreserveResources "unreserve_resources" "reserver_principals" Names,
    CreateVolume "create_volumes" "roles" Roles,
    DestroyVolume "destroy_volumes" "creator_principals" Names,
    TeardownFramework "teardown_frameworks" "framework_principals" Names,
    UpdateWeight "update_weights" "roles" Roles,
    GetEndpoint "get_endpoints" "paths" Names,
    GetQuota "get_quotas" "roles" Roles,
    UpdateQuota "update_quotas" "roles" Roles,
    ViewFramework "view_frameworks" "users" Names,
    ViewTask "view_tasks" "users" Names,
    ViewExecutor "view_executors" "users" Names,
    AccessSandbox "access_sandboxes" "users" Names,
    AccessMesosLog "access_mesos_logs" "logs" Whole,
    ViewRole "view_roles" "roles" Roles,
    ViewFlags "view_flags" "flags" Whole,
    LaunchNestedContainerAsUser "launch_nested_containers_as_user" "users" Names,
    LaunchNestedContainerUnderParentWithUser
        "launch_nested_containers_under_parent_with_user" "users" Names,
    KillNestedContainer "kill_nested_containers" "users" Names,
    WaitNestedContainer "wait_nested_containers" "users" Names,
    LaunchNestedContainerSessionAsUser "launch_nested_container_sessions_as_user" "users" Names,
    LaunchNestedContainerSessionUnderParentWithUser
        "launch_nested_container_sessions_under_parent_with_user" "users" Names,
    AttachContainerInput "attach_containers_input" "users" Names,
    AttachContainerOutput "attach_containers_output" "users" Names,
    ViewContainer "view_containers" "users" Names,
    SetLogLevel "set_log_level" "level" Whole,
    RemoveNestedContainer "remove_nested_containers" "users" Names,
    RegisterAgent "register_agents" "agents" Whole,
    UpdateMaintenanceSchedule "update_maintenance_schedules" "machines" Whole,
    GetMaintenanceSchedule "get_maintenance_schedules" "machines" Whole,
    StartMaintenance "start_maintenances" "machines" Whole,
    StopMaintenance "stop_maintenances" "machines" Whole,
    GetMaintenanceStatus "get_maintenance_statuses" "machines" Whole,
    MarkAgentGone "mark_agents_gone" "agents" Whole,
    LaunchStandaloneContainer "launch_standalone_containers" "users" Names,
    KillStandaloneContainer "kill_standalone_containers" "users" Names,
    WaitStandaloneContainer "wait_standalone_containers" "users" Names,
    RemoveStandaloneContainer "remove_standalone_containers" "users" Names,
    ModifyResourceProviderConfig "modify_resource_provider_configs" "resource_providers" Whole,
    ViewStandaloneContainer "view_standalone_containers" "users" Names,
    PruneImages "prune_images" "images" Whole,
    ResizeVolume "resize_volumes" "roles" Roles,
    CreateBlockDisk "create_block_disks" "roles" Roles,
    DestroyBlockDisk "destroy_block_disks" "roles" Roles,
    CreateMountDisk "create_mount_disks" "roles" Roles,
    DestroyMountDisk "destroy_mount_disks" "roles" Roles,
    ViewResourceProvider "view_resource_providers" "resource_providers" Whole,
    MarkResourceProvidersGone "mark_resource_providers_gone" "resource_providers" Whole,
    DestroyRawDisk "destroy_raw_disks" "roles" Roles,
    DrainAgent "drain_agents" "agents" Whole,
    DeactivateAgent "deactivate_agents" "agents" Whole,
    ReactivateAgent "reactivate_agents" "agents" Whole,
}
