%% What supervision costs in Erlang/OTP: the peer of bench/Supervised.ts, which answers the same questions for Ironwood.
%%
%% `erl -noshell -s supervised main GROUP` answers one group of questions in this VM and prints a JSON line for each
%% figure: {"figure": NAME, "value": NUMBER}. Supervisors and children are OTP's own and as they come, the children as
%% small as a gen_server can be; nothing is logged. Dynamic is simple_one_for_one, static is one_for_one.
%%
%% One init/1 serves as the supervisors' and the children's callback.
%% A crash is measured by the children: from the last moment before it to the init of the next incarnation.
-module(supervised).
-behaviour(gen_server).
-export([main/1, start_child/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

main([Group]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    warm_up(),
    answer(Group),
    halt(0).

%% --- the questions ---

answer(dynamic) ->
    Children = 100000,
    Supervisor = dynamic(0),
    collect(),
    Before = erlang:memory(total),
    figure(start, microseconds(fun() -> add(Supervisor, Children) end) / Children),
    collect(),
    figure(memory, (erlang:memory(total) - Before) / Children),
    {Pauses, Snapshots} = lists:unzip([snapshot(Supervisor, Children) || _ <- lists:seq(1, 5)]),
    figure(snapshot, quantile(Snapshots, 0.5) / 1000),
    figure(pause, quantile(Pauses, 0.5) / 1000),
    figure(stop, microseconds(fun() -> stop(Supervisor) end) / Children);
answer(static) ->
    Children = 100000,
    Supervisor = static(Children),
    Pids = pids(Supervisor),
    told([crash(maps:get(N, Pids)) || N <- lists:seq(1, Children, Children div 400)], 100),
    figure(stop, microseconds(fun() -> stop(Supervisor) end) / Children);
answer(alone) ->
    told(crash_often(static(1), 1500), 500);
answer(history) ->
    Supervisor = static(1),
    crash_often(Supervisor, 30000),
    told(crash_often(Supervisor, 1000), 0);
answer(sustained) ->
    Pids = maps:values(pids(static(1000))),
    Rounds = 20,
    Round = fun(_, Alive) -> [element(2, crash(Pid)) || Pid <- Alive] end,
    Took = microseconds(fun() -> lists:foldl(Round, Pids, lists:seq(1, Rounds)) end),
    figure(rate, Rounds * length(Pids) / (Took / 1000000)).

%% Nanoseconds from the crash to the next incarnation, and its pid.
crash(Pid) ->
    register(crasher, self()),
    Pid ! crash,
    Begin = receive {crashing, Pid, At} -> At end,
    receive
        {running, Next, End} ->
            unregister(crasher),
            {erlang:convert_time_unit(End - Begin, native, nanosecond), Next}
    end.

%% Crashes the only child again and again.
crash_often(Supervisor, Times) ->
    [First] = maps:values(pids(Supervisor)),
    {Crashes, _} = lists:mapfoldl(fun(_, Pid) -> Crash = crash(Pid), {Crash, element(2, Crash)} end, First, lists:seq(1, Times)),
    Crashes.

%% The first ones are not counted.
told(Crashes, Uncounted) ->
    Nanoseconds = lists:nthtail(Uncounted, [Took || {Took, _} <- Crashes]),
    figure(p50, quantile(Nanoseconds, 0.5) / 1000),
    figure(p99, quantile(Nanoseconds, 0.99) / 1000).

%% The longest wait of another caller of this supervisor during which_children, and how long that takes, in microseconds.
snapshot(Supervisor, Children) ->
    Caller = spawn_link(fun() -> call_often(Supervisor, 0) end),
    timer:sleep(20),
    Caller ! forget,
    Took = microseconds(fun() -> Children = length(supervisor:which_children(Supervisor)) end),
    Caller ! {tell, self()},
    receive {longest, Longest} -> {Longest, Took} end.

call_often(Supervisor, Longest) ->
    Took = microseconds(fun() -> supervisor:count_children(Supervisor) end),
    receive
        forget -> call_often(Supervisor, 0);
        {tell, Pid} -> unlink(Pid), Pid ! {longest, max(Took, Longest)}
    after 0 -> call_often(Supervisor, max(Took, Longest))
    end.

%% --- the tree ---

dynamic(Children) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, dynamic),
    add(Supervisor, Children),
    Supervisor.

static(Children) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, {static, Children}),
    Supervisor.

add(Supervisor, Children) ->
    [{ok, _} = supervisor:start_child(Supervisor, [N]) || N <- lists:seq(1, Children)],
    ok.

pids(Supervisor) ->
    maps:from_list([{Id, Pid} || {Id, Pid, _, _} <- supervisor:which_children(Supervisor)]).

%% As the one who started it does.
stop(Supervisor) ->
    exit(Supervisor, shutdown),
    receive {'EXIT', Supervisor, _} -> ok end.

init(dynamic) ->
    {ok, {flags(simple_one_for_one), [spec(child, [])]}};
init({static, Children}) ->
    {ok, {flags(one_for_one), [spec(N, [N]) || N <- lists:seq(1, Children)]}};
init(child) ->
    Crasher = whereis(crasher),
    is_pid(Crasher) andalso (Crasher ! {running, self(), erlang:monotonic_time()}),
    {ok, none}.

flags(Strategy) ->
    #{strategy => Strategy, intensity => 1000000, period => 3600}.

spec(Id, Arguments) ->
    #{id => Id, start => {?MODULE, start_child, Arguments}, restart => permanent, shutdown => 5000}.

start_child(_Number) ->
    gen_server:start_link(?MODULE, child, []).

handle_call(_, _, State) ->
    {reply, ok, State}.

handle_cast(_, State) ->
    {noreply, State}.

handle_info(crash, State) ->
    crasher ! {crashing, self(), erlang:monotonic_time()},
    error({crash, State}).

%% --- measuring ---

%% Loads all code that the questions need.
warm_up() ->
    Dynamic = dynamic(100),
    snapshot(Dynamic, 100),
    stop(Dynamic),
    Static = static(100),
    crash(maps:get(1, pids(Static))),
    stop(Static),
    collect().

collect() ->
    [erlang:garbage_collect(Pid) || Pid <- processes()].

microseconds(Act) ->
    element(1, timer:tc(Act)).

quantile(Values, Share) ->
    Sorted = lists:sort(Values),
    lists:nth(min(length(Sorted), trunc(length(Sorted) * Share) + 1), Sorted).

figure(Name, Value) ->
    io:format("{\"figure\":\"~s\",\"value\":~.3f}~n", [Name, Value * 1.0]).
