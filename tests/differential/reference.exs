# The Phoenix server that gateways are compared with: `PORT=4000 elixir tests/differential/reference.exs`
unless Code.ensure_loaded?(Phoenix),
  do: Mix.install([{:phoenix, "~> 1.8"}, {:bandit, "~> 1.0"}, {:jason, "~> 1.4"}])

Application.put_env(:phoenix, :json_library, Jason)
Logger.configure(level: :critical)

defmodule Reference.Presence do
  use Phoenix.Presence, otp_app: :reference, pubsub_server: Reference.PubSub
end

defmodule Reference.Channel do
  use Phoenix.Channel
  alias Reference.Presence

  def join("room:private", _, _), do: {:error, %{reason: "unauthorized"}}
  def join("room:" <> _, _, socket), do: {:ok, socket}

  def join("lobby:" <> _, _, socket) do
    send(self(), :after_join)
    {:ok, socket}
  end

  def handle_info(:after_join, socket) do
    {:ok, _} = Presence.track(socket, socket.assigns.user, %{})
    push(socket, "presence_state", Presence.list(socket))
    {:noreply, socket}
  end

  def handle_in("unknown", _, _), do: raise("what a channel module has no clause for")

  def handle_in("silent", payload, socket) do
    broadcast!(socket, "silent", payload)
    {:noreply, socket}
  end

  def handle_in("presence_update", payload, socket) do
    {:ok, _} = Presence.update(socket, socket.assigns.user, payload)
    {:reply, :ok, socket}
  end

  def handle_in(event, payload, socket) do
    broadcast!(socket, event, payload)
    {:reply, :ok, socket}
  end
end

defmodule Reference.Socket do
  use Phoenix.Socket
  channel "room:*", Reference.Channel
  channel "lobby:*", Reference.Channel

  # who it is matters here, not whether that is true
  def connect(%{"token" => token}, socket, _) do
    [_, claims, _] = String.split(token, ".")
    %{"sub" => user} = claims |> Base.url_decode64!(padding: false) |> Jason.decode!()
    {:ok, assign(socket, :user, user)}
  end

  def id(_), do: nil
end

defmodule Reference.Endpoint do
  use Phoenix.Endpoint, otp_app: :reference
  socket "/socket", Reference.Socket, websocket: [check_origin: false], longpoll: [check_origin: false]
end

Application.put_env(:reference, Reference.Endpoint,
  adapter: Bandit.PhoenixAdapter,
  http: [ip: {127, 0, 0, 1}, port: String.to_integer(System.get_env("PORT", "4000"))],
  secret_key_base: String.duplicate("a", 64),
  pubsub_server: Reference.PubSub,
  server: true
)

children = [{Phoenix.PubSub, name: Reference.PubSub}, Reference.Presence, Reference.Endpoint]
{:ok, _} = Supervisor.start_link(children, strategy: :one_for_one)
Process.sleep(:infinity)
