"""The gRPC half of the stand-in server: the calls that `ServerStore` makes, on the port next to that of `tests.qdrant_rest`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import grpc
from qdrant_client import grpc as wire
from qdrant_client import models
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc

from tests.ports import free_ports
from tests.qdrant_rest import TITLE, VERSION, RestQdrant, serving_rest

_DONE = wire.UpdateResult(operation_id=1, status=wire.UpdateStatus.Completed)


class Root(wire.QdrantServicer):
    def __init__(self, version: str) -> None:
        self._version = version

    async def HealthCheck(self, request: Any, context: Any) -> Any:
        return wire.HealthCheckReply(title=TITLE, version=self._version)


class Collections(wire.CollectionsServicer):
    def __init__(self, qdrant: RestQdrant) -> None:
        self._qdrant = qdrant

    async def List(self, request: Any, context: Any) -> Any:
        return wire.ListCollectionsResponse(collections=[wire.CollectionDescription(name=name) for name in self._qdrant.indexes])

    async def CollectionExists(self, request: Any, context: Any) -> Any:
        exists = request.collection_name in self._qdrant.indexes
        return wire.CollectionExistsResponse(result=wire.CollectionExists(exists=exists))

    async def Create(self, request: Any, context: Any) -> Any:
        name, vectors = request.collection_name, GrpcToRest.convert_vectors_config(request.vectors_config)
        if name in self._qdrant.indexes:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Collection `{name}` already exists!")
        self._qdrant.indexes[name] = {}
        await self._qdrant.run(partial(self._qdrant.engine.create_collection, name, vectors_config=vectors))
        return wire.CollectionOperationResponse(result=True)

    async def Delete(self, request: Any, context: Any) -> Any:
        """As the server: `result` tells whether there was one."""
        existed = self._qdrant.indexes.pop(request.collection_name, None) is not None
        await self._qdrant.run(partial(self._qdrant.engine.delete_collection, request.collection_name))
        return wire.CollectionOperationResponse(result=existed)

    async def Get(self, request: Any, context: Any) -> Any:
        name = await _present(self._qdrant, request, context)
        info = await self._qdrant.run(partial(self._qdrant.engine.get_collection, name))
        info.payload_schema = self._qdrant.indexes[name]
        return wire.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))


class Points(wire.PointsServicer):
    def __init__(self, qdrant: RestQdrant) -> None:
        self._qdrant = qdrant

    async def _call(self, request: Any, context: Any, method: Callable[..., Any], **options: Any) -> Any:
        name = await _present(self._qdrant, request, context)
        try:
            return await self._qdrant.run(partial(method, name, **options))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

    async def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        name = await _present(self._qdrant, request, context)
        data_type = wire.FieldType.Name(request.field_type).removeprefix("FieldType").lower()
        params = (
            GrpcToRest.convert_payload_schema_params(request.field_index_params)
            if request.HasField("field_index_params")
            else None
        )
        told = {"data_type": data_type, "params": params, "points": 0}
        self._qdrant.indexes[name][request.field_name] = models.PayloadIndexInfo.model_validate(told)
        return wire.PointsOperationResponse(result=_DONE)

    async def Upsert(self, request: Any, context: Any) -> Any:
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        await self._call(request, context, self._qdrant.engine.upsert, points=points)
        return wire.PointsOperationResponse(result=_DONE)

    async def SetPayload(self, request: Any, context: Any) -> Any:
        payload, points = GrpcToRest.convert_payload(request.payload), GrpcToRest.convert_points_selector(request.points_selector)
        await self._call(request, context, self._qdrant.engine.set_payload, payload=payload, points=points)
        return wire.PointsOperationResponse(result=_DONE)

    async def Delete(self, request: Any, context: Any) -> Any:
        selector = GrpcToRest.convert_points_selector(request.points)
        await self._call(request, context, self._qdrant.engine.delete, points_selector=selector)
        return wire.PointsOperationResponse(result=_DONE)

    async def Get(self, request: Any, context: Any) -> Any:
        ids = [GrpcToRest.convert_point_id(point_id) for point_id in request.ids]
        found = await self._call(request, context, self._qdrant.engine.retrieve, ids=ids, **_with(request))
        return wire.GetResponse(result=[_record(record) for record in found])

    async def Query(self, request: Any, context: Any) -> Any:
        found = await self._call(
            request,
            context,
            self._qdrant.engine.query_points,
            query=GrpcToRest.convert_query(request.query),
            query_filter=_filter(request),
            limit=request.limit,
            offset=request.offset,
            score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
            **_with(request),
        )
        return wire.QueryResponse(result=[RestToGrpc.convert_scored_point(point) for point in found.points])

    async def Scroll(self, request: Any, context: Any) -> Any:
        offset = GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None
        options = {"scroll_filter": _filter(request), "limit": request.limit, "offset": offset, **_with(request)}
        page, following = await self._call(request, context, self._qdrant.engine.scroll, **options)
        next_id = None if following is None else RestToGrpc.convert_extended_point_id(following)
        return wire.ScrollResponse(result=[_record(record) for record in page], next_page_offset=next_id)

    async def Count(self, request: Any, context: Any) -> Any:
        found = await self._call(request, context, self._qdrant.engine.count, count_filter=_filter(request), exact=True)
        return wire.CountResponse(result=wire.CountResult(count=found.count))

    async def Facet(self, request: Any, context: Any) -> Any:
        options = {"facet_filter": _filter(request), "limit": request.limit, "exact": request.exact}
        found = await self._call(request, context, self._qdrant.engine.facet, key=request.key, **options)
        hits = [wire.FacetHit(value=wire.FacetValue(string_value=hit.value), count=hit.count) for hit in found.hits]
        return wire.FacetResponse(hits=hits)


class KeyCheck(grpc.aio.ServerInterceptor):
    def __init__(self, api_key: str | None) -> None:
        self._api_key = api_key

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        if self._api_key in {None, dict(handler_call_details.invocation_metadata).get("api-key")}:
            return await continuation(handler_call_details)

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")

        return grpc.unary_unary_rpc_method_handler(refuse)


async def _present(qdrant: RestQdrant, request: Any, context: Any) -> str:
    name: str = request.collection_name
    if name not in qdrant.indexes:
        await context.abort(grpc.StatusCode.NOT_FOUND, f"Collection `{name}` doesn't exist!")
    return name


def _with(request: Any) -> dict[str, Any]:
    return {
        "with_payload": GrpcToRest.convert_with_payload_selector(request.with_payload),
        "with_vectors": GrpcToRest.convert_with_vectors_selector(request.with_vectors),
    }


def _record(record: models.Record) -> Any:
    return RestToGrpc.convert_record(record.model_copy(update={"payload": record.payload or {}}))


def _filter(request: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


@asynccontextmanager
async def qdrant_grpc(*, api_key: str | None = None, grpc_version: str = VERSION) -> AsyncIterator[str]:
    """A server that speaks REST, and gRPC on the next port; yields the URL of the first."""
    qdrant, (port, of_grpc) = RestQdrant(api_key=api_key), free_ports(2)
    server = grpc.aio.server(interceptors=[KeyCheck(api_key)])
    wire.add_QdrantServicer_to_server(Root(grpc_version), server)
    wire.add_CollectionsServicer_to_server(Collections(qdrant), server)
    wire.add_PointsServicer_to_server(Points(qdrant), server)
    server.add_insecure_port(f"127.0.0.1:{of_grpc}")
    await server.start()
    try:
        async with serving_rest(qdrant, port) as url:
            yield url
    finally:
        await server.stop(grace=None)
